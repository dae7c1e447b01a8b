// quantity-oracle says what Kubernetes' own resource.Quantity makes of texts.
//
// It reads one JSON array of two strings a line, and answers each with a line: what either text means, and how the
// two quantities compare and add up.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"log"
	"os"
	"strconv"

	"gopkg.in/inf.v0"
	"k8s.io/apimachinery/pkg/api/resource"
)

// answer describes one text.
type answer struct {
	// Error is "format", "suffix" or "numeric"; the other fields are then empty.
	Error string `json:"error,omitempty"`
	// Stored is what the API server keeps: String(), which may echo the text.
	Stored string `json:"stored,omitempty"`
	// Canonical is the canonical form, never an echo.
	Canonical string          `json:"canonical,omitempty"`
	Format    resource.Format `json:"format,omitempty"`
	// Exact is the exact amount, "UNSCALEDeEXPONENT".
	Exact string `json:"exact,omitempty"`
	// Value and Milli are absent where they don't fit in 64 bits. They are those of the magnitude: for negative
	// fractions Go's answer depends on how it happens to hold the amount (-1500m is -2, -1.5000000000000000000 is 0).
	Value *int64 `json:"value,omitempty"`
	Milli *int64 `json:"milli,omitempty"`
}

type pair struct {
	A answer `json:"a"`
	B answer `json:"b"`
	// Cmp, Sum and Difference are absent if a text is wrong, or so large that Go would take minutes over it.
	Cmp        *int    `json:"cmp,omitempty"`
	Sum        *answer `json:"sum,omitempty"`
	Difference *answer `json:"difference,omitempty"`
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()
	decoder, encoder := json.NewDecoder(in), json.NewEncoder(out)
	for decoder.More() {
		var texts [2]string
		if err := decoder.Decode(&texts); err != nil {
			log.Fatalf("quantity-oracle: stdin: %v", err)
		}
		if err := encoder.Encode(compare(texts[0], texts[1])); err != nil {
			log.Fatalf("quantity-oracle: stdout: %v", err)
		}
	}
}

func compare(first, second string) pair {
	a, errA := resource.ParseQuantity(first)
	b, errB := resource.ParseQuantity(second)
	result := pair{A: describe(a, errA), B: describe(b, errB)}
	if errA != nil || errB != nil || !tractable(a) || !tractable(b) {
		return result
	}
	// Cmp changes how its receiver is held, so every operation gets copies of its own.
	receiver := a.DeepCopy()
	cmp := receiver.Cmp(b.DeepCopy())
	sum, difference := a.DeepCopy(), a.DeepCopy()
	sum.Add(b.DeepCopy())
	difference.Sub(b.DeepCopy())
	describedSum, describedDifference := describe(sum, nil), describe(difference, nil)
	result.Cmp, result.Sum, result.Difference = &cmp, &describedSum, &describedDifference
	return result
}

func describe(q resource.Quantity, err error) answer {
	switch {
	case errors.Is(err, resource.ErrFormatWrong):
		return answer{Error: "format"}
	case errors.Is(err, resource.ErrSuffix):
		return answer{Error: "suffix"}
	case errors.Is(err, resource.ErrNumeric):
		return answer{Error: "numeric"}
	case err != nil:
		log.Fatalf("quantity-oracle: unknown error: %v", err)
	}
	stored := q.DeepCopy()
	number, suffix := q.CanonicalizeBytes(nil)
	magnitude := q.DeepCopy()
	if magnitude.Sign() < 0 {
		magnitude.Neg()
	}
	copied := q.DeepCopy()
	exact := copied.AsDec()
	return answer{
		Stored:    stored.String(),
		Canonical: string(number) + string(suffix),
		Format:    q.Format,
		Exact:     exact.UnscaledBig().String() + "e" + strconv.Itoa(-int(exact.Scale())),
		Value:     scaled(magnitude, 0),
		Milli:     scaled(magnitude, resource.Milli),
	}
}

// scaled is q.ScaledValue(scale), which is Value() or MilliValue(), or nil where that would overflow: Go then returns 0
// or the low 64 bits, depending on how it holds q.
func scaled(q resource.Quantity, scale resource.Scale) *int64 {
	var value int64
	if q.IsZero() { // Go counts the exponent of 0e2000000000 down
		return &value
	}
	copied := q.DeepCopy()
	exact := copied.AsDec()
	if exact.Scale() < -40 || !new(inf.Dec).Round(exact, inf.Scale(-scale), inf.RoundUp).UnscaledBig().IsInt64() {
		return nil
	}
	value = q.ScaledValue(scale)
	return &value
}

// tractable returns whether Go can align q with other quantities in reasonable time.
func tractable(q resource.Quantity) bool {
	copied := q.DeepCopy()
	scale := copied.AsDec().Scale()
	return -1000 <= scale && scale <= 1000
}
