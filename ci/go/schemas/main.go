// Command schemas writes a JSON schema for each kind of a Kubernetes OpenAPI document.
//
//	schemas SWAGGER.JSON FOLDER
//
// The schemas are strict: an unknown field is an error. Each refers to the definitions in one shared file.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

const definitionsFile = "_definitions.json"

// The API server decodes these from more than the type that the document names.
var widened = map[string]any{
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString": oneOf("string", "integer"),
	"io.k8s.apimachinery.pkg.api.resource.Quantity":   oneOf("string", "number"),
}

type groupVersionKind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

func oneOf(types ...string) any {
	var schemas []any
	for _, name := range types {
		schemas = append(schemas, map[string]any{"type": name})
	}
	return map[string]any{"oneOf": schemas}
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: schemas SWAGGER.JSON FOLDER")
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		log.Fatal("schemas: ", err)
	}
}

func run(document, folder string) error {
	text, err := os.ReadFile(document)
	if err != nil {
		return err
	}
	var swagger struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	if err := json.Unmarshal(text, &swagger); err != nil {
		return fmt.Errorf("%s: %w", document, err)
	}
	for name, definition := range swagger.Definitions {
		if wide, ok := widened[name]; ok {
			swagger.Definitions[name] = wide.(map[string]any)
			continue
		}
		kinds, err := kindsOf(definition)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		makeStrict(definition)
		for _, kind := range kinds {
			reference := map[string]any{"$ref": definitionsFile + "#/definitions/" + name}
			if err := write(filepath.Join(folder, fileName(kind)), reference); err != nil {
				return err
			}
		}
	}
	return write(filepath.Join(folder, definitionsFile), map[string]any{"definitions": swagger.Definitions})
}

func kindsOf(definition map[string]any) ([]groupVersionKind, error) {
	text, err := json.Marshal(definition["x-kubernetes-group-version-kind"])
	if err != nil {
		return nil, err
	}
	var kinds []groupVersionKind
	return kinds, json.Unmarshal(text, &kinds)
}

// makeStrict refuses fields that the definition does not name. An object without properties holds anything.
func makeStrict(definition map[string]any) {
	if _, ok := definition["properties"]; ok {
		definition["additionalProperties"] = false
	}
}

// fileName is kubeconform's {{.ResourceKind}}{{.KindSuffix}}.
func fileName(kind groupVersionKind) string {
	parts := []string{kind.Kind}
	if kind.Group != "" {
		parts = append(parts, strings.Split(kind.Group, ".")[0])
	}
	return strings.ToLower(strings.Join(append(parts, kind.Version), "-")) + ".json"
}

func write(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}
