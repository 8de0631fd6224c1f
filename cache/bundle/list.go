package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// checked is an element of an array in a document.
type checked interface{ check() error }

// list is an array in a document. It is decoded element by element, and the first invalid
// element ends it: a document of millions of empty elements would otherwise take many times
// its size in memory. A valid element has a digest or a name, which is most of what it takes.
type list[T checked] []T

// maxElements is how many elements an array may have. It is a bound for short elements.
const maxElements = 100_000

// UnmarshalJSON is for [json.Unmarshaler].
func (l *list[T]) UnmarshalJSON(raw []byte) error {
	*l = nil
	return decodeArray(json.NewDecoder(bytes.NewReader(raw)), maxElements, func(element T) { *l = append(*l, element) })
}

// decodeArray decodes an array, or null, and gives each element to add.
func decodeArray[T checked](in *json.Decoder, limit int, add func(T)) error {
	switch start, err := in.Token(); {
	case err != nil:
		return err
	case start == nil:
		return nil
	case start != json.Delim('['):
		return errors.New("it is not an array")
	}
	for n := 0; in.More(); n++ {
		if n == limit {
			return fmt.Errorf("it has more than %d elements", limit)
		}
		var element T
		if err := in.Decode(&element); err != nil {
			return err
		}
		if err := element.check(); err != nil {
			return fmt.Errorf("element %d: %w", n, err)
		}
		add(element)
	}
	_, err := in.Token()
	return err
}
