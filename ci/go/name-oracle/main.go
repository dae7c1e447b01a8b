// name-oracle says what image names mean to the kubelet and to container runtimes.
//
// It reads one name a line, as a JSON string, and answers each with a line: its parts, or null if it is no name.
package main

import (
	"bufio"
	// Digests of these algorithms are known to who has them linked, as the kubelet has.
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/json"
	"log"
	"os"

	"github.com/distribution/reference"
)

type parts struct {
	Registry   string `json:"registry"`
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Digest     string `json:"digest"`
}

func main() {
	decoder, encoder := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for decoder.More() {
		var name string
		if err := decoder.Decode(&name); err != nil {
			log.Fatalf("name-oracle: stdin: %v", err)
		}
		if err := encoder.Encode(read(name)); err != nil {
			log.Fatalf("name-oracle: stdout: %v", err)
		}
	}
}

func read(name string) *parts {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil
	}
	result := &parts{Registry: reference.Domain(named), Repository: reference.Path(named)}
	if tagged, ok := reference.TagNameOnly(named).(reference.Tagged); ok {
		result.Tag = tagged.Tag()
	}
	if digested, ok := named.(reference.Digested); ok {
		result.Digest = digested.Digest().String()
	}
	return result
}
