// registry-tools is what tests need around a real registry: images of any platform, a password file, a token server.
//
//	registry-tools push [--single] IMAGE PLATFORM...   pushes an index with an image for each platform, or one image
//	registry-tools htpasswd USER PASSWORD              prints a line of a password file
//	registry-tools tokens ADDRESS SERVICE              serves tokens for SERVICE at https://ADDRESS/token
//
// REGISTRY_USER and REGISTRY_PASSWORD are whom push shows, if anybody, and tokens knows. REGISTRY_CA is a file of the CA that
// push trusts; REGISTRY_CERT and REGISTRY_KEY are files of what tokens serves and signs with.
package main

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("registry-tools: ")
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) > 3 && arguments[0] == "push" && arguments[1] == "--single":
		return push(arguments[2], arguments[3:], true)
	case len(arguments) > 2 && arguments[0] == "push":
		return push(arguments[1], arguments[2:], false)
	case len(arguments) == 3 && arguments[0] == "htpasswd":
		return htpasswd(arguments[1], arguments[2])
	case len(arguments) == 3 && arguments[0] == "tokens":
		return tokens(arguments[1], arguments[2])
	}
	return errors.New("push, htpasswd or tokens is wanted")
}

func image(platform *v1.Platform) (v1.Image, error) {
	config := v1.ConfigFile{OS: platform.OS, Architecture: platform.Architecture, Variant: platform.Variant, RootFS: v1.RootFS{Type: "layers"}}
	image, err := mutate.ConfigFile(empty.Image, &config)
	if err != nil {
		return nil, err
	}
	return mutate.ConfigMediaType(mutate.MediaType(image, types.OCIManifestSchema1), types.OCIConfigJSON), nil
}

func push(reference string, platforms []string, single bool) error {
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	var options []remote.Option
	if file := os.Getenv("REGISTRY_CA"); file != "" {
		ca, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(ca)
		options = append(options, remote.WithTransport(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}))
	}
	if user := os.Getenv("REGISTRY_USER"); user != "" {
		options = append(options, remote.WithAuth(&authn.Basic{Username: user, Password: os.Getenv("REGISTRY_PASSWORD")}))
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, text := range platforms {
		platform, err := v1.ParsePlatform(text)
		if err != nil {
			return err
		}
		one, err := image(platform)
		if err != nil {
			return err
		}
		if single {
			return remote.Write(ref, one, options...)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return remote.WriteIndex(ref, index, options...)
}

func htpasswd(user, password string) error {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s:%s\n", user, hash)
	return err
}

// access is what a token allows (https://distribution.github.io/distribution/spec/auth/jwt/).
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func tokens(address, service string) error {
	pair, err := tls.LoadX509KeyPair(os.Getenv("REGISTRY_CERT"), os.Getenv("REGISTRY_KEY"))
	if err != nil {
		return err
	}
	key, is := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !is {
		return errors.New("REGISTRY_KEY must be of ECDSA")
	}
	chain := []string{base64.StdEncoding.EncodeToString(pair.Certificate[0])}
	signing := (&jose.SignerOptions{}).WithType("JWT").WithHeader("x5c", chain)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, signing)
	if err != nil {
		return err
	}
	http.HandleFunc("GET /token", func(answer http.ResponseWriter, request *http.Request) {
		user, password, shown := request.BasicAuth()
		if !shown || user != os.Getenv("REGISTRY_USER") || password != os.Getenv("REGISTRY_PASSWORD") {
			answer.WriteHeader(http.StatusUnauthorized)
			return
		}
		var allowed []access
		for _, scope := range request.URL.Query()["scope"] {
			if parts := strings.Split(scope, ":"); len(parts) == 3 {
				allowed = append(allowed, access{Type: parts[0], Name: parts[1], Actions: strings.Split(parts[2], ",")})
			}
		}
		now := time.Now()
		claims := jwt.Claims{
			Issuer: service, Subject: user, Audience: jwt.Audience{service}, ID: fmt.Sprint(now.UnixNano()),
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)), Expiry: jwt.NewNumericDate(now.Add(5 * time.Minute)),
		}
		token, err := jwt.Signed(signer).Claims(claims).Claims(map[string]any{"access": allowed}).Serialize()
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(answer).Encode(map[string]any{"token": token, "expires_in": 300})
	})
	return http.ListenAndServeTLS(address, os.Getenv("REGISTRY_CERT"), os.Getenv("REGISTRY_KEY"), nil)
}
