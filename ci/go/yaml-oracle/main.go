// yaml-oracle says what YAML means to kubectl, Helm and the API server, which all read it with sigs.k8s.io/yaml.
//
// It reads one document a line, as a JSON string, and answers each with a line: its value, or that there is none.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"sigs.k8s.io/yaml"
)

type answer struct {
	Value json.RawMessage `json:"value,omitempty"`
	Error string          `json:"error,omitempty"`
}

func main() {
	decoder, encoder := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	encoder.SetEscapeHTML(false)
	for decoder.More() {
		var document string
		if err := decoder.Decode(&document); err != nil {
			log.Fatalf("yaml-oracle: stdin: %v", err)
		}
		var result answer
		value, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			result.Error = err.Error()
		} else {
			result.Value = value
		}
		if err := encoder.Encode(result); err != nil {
			log.Fatalf("yaml-oracle: stdout: %v", err)
		}
	}
}
