// crd-check validates CustomResourceDefinitions, and objects of their kinds, as an API server of the version that it is built with.
//
// crd-check CASES DEFINITION...: exit status 1 if the API server would refuse a definition, for example because the estimated cost of
// its rules exceeds the budget, or if it would treat an object in CASES in another way than that file says.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	v1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

// testCase is an object of the kind, and a part of the error that refuses it; empty if it is accepted.
type testCase struct {
	Kind    string         `json:"kind"`
	Spec    map[string]any `json:"spec"`
	Refused string         `json:"refused"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "crd-check:", err)
		os.Exit(2)
	}
}

func read(file string, into any) {
	text, err := os.ReadFile(file)
	check(err)
	check(yaml.UnmarshalStrict(text, into))
}

// integers turns whole numbers into integers, as the API server reads them.
func integers(value any) any {
	switch value := value.(type) {
	case float64:
		if value == float64(int64(value)) {
			return int64(value)
		}
	case map[string]any:
		for key, each := range value {
			value[key] = integers(each)
		}
	case []any:
		for index, each := range value {
			value[index] = integers(each)
		}
	}
	return value
}

// problems of one object.
func problems(schema *apiextensions.JSONSchemaProps, spec map[string]any) field.ErrorList {
	structural, err := structuralschema.NewStructural(schema)
	check(err)
	object := map[string]any{"apiVersion": "g/v1", "kind": "K", "metadata": map[string]any{"name": "a"}, "spec": integers(spec)}
	defaulting.Default(object, structural)
	validator, _, err := schemavalidation.NewSchemaValidator(schema)
	check(err)
	found := schemavalidation.ValidateCustomResource(nil, object, validator)
	rules := cel.NewValidator(structural, true, celconfig.PerCallLimit)
	broken, _ := rules.Validate(context.Background(), nil, structural, object, nil, celconfig.RuntimeCELCostBudget)
	return append(found, broken...)
}

func main() {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	var cases []testCase
	read(os.Args[1], &cases)
	failed := false
	fail := func(format string, arguments ...any) {
		failed = true
		fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	}
	for _, file := range os.Args[2:] {
		var definition v1.CustomResourceDefinition
		read(file, &definition)
		scheme.Default(&definition)
		var internal apiextensions.CustomResourceDefinition
		check(scheme.Convert(&definition, &internal, nil))
		for _, problem := range validation.ValidateCustomResourceDefinition(context.Background(), &internal) {
			fail("%s: %v", file, problem)
		}
		schema := internal.Spec.Validation.OpenAPIV3Schema
		for _, one := range cases {
			if one.Kind != definition.Spec.Names.Kind {
				continue
			}
			found := problems(schema, one.Spec)
			text, _ := yaml.Marshal(one.Spec)
			if one.Refused == "" && len(found) > 0 {
				fail("%s refused: %v\n%s", one.Kind, found.ToAggregate(), text)
			}
			if one.Refused != "" && (len(found) == 0 || !strings.Contains(found.ToAggregate().Error(), one.Refused)) {
				fail("%s not refused for %q but: %v\n%s", one.Kind, one.Refused, found.ToAggregate(), text)
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}
