package archive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// object is one level of a JSON object.
type object map[string]json.RawMessage

// parseObject reads one object. encoding/json takes "RootFS" for "rootfs" and
// the last of two keys, other languages' readers do not: so that all readers
// see the same image, a known key must be written exactly, and once. Keys that
// are not known are left alone.
func parseObject(data []byte, known ...string) (object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil {
		return nil, jsonWords(err)
	}
	if t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	o := object{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, jsonWords(err)
		}
		key, _ := t.(string) // keys of objects are strings, the decoder sees to that
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, jsonWords(err)
		}
		for _, k := range known {
			if !strings.EqualFold(k, key) {
				continue
			}
			if k != key {
				return nil, fmt.Errorf("its key %s must be written %q", quoted(key), k)
			}
			if _, ok := o[k]; ok {
				return nil, fmt.Errorf("it has the key %q twice", k)
			}
			o[k] = v
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonWords(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after its end")
	}
	return o, nil
}

// get decodes the value of a key into v; nothing where it has none.
func (o object) get(key string, v any) error {
	raw, ok := o[key]
	if !ok {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return fmt.Errorf("its %q is not of the right type", key)
	}
	return nil
}

// strings decodes the values of several keys that are strings.
func (o object) strings(into map[string]*string) error {
	for k, v := range into {
		if err := o.get(k, v); err != nil {
			return err
		}
	}
	return nil
}

// list returns the elements of a key that is an array.
func (o object) list(key string, most int) ([]json.RawMessage, error) {
	var l []json.RawMessage
	if err := o.get(key, &l); err != nil {
		return nil, err
	}
	if len(l) > most {
		return nil, fmt.Errorf("its %q has %d elements, at most %d are allowed", key, len(l), most)
	}
	return l, nil
}

// has tells whether the key is there with a value.
func (o object) has(key string) bool {
	raw, ok := o[key]
	return ok && string(raw) != "null"
}

// jsonWords says what is wrong with a document.
func jsonWords(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it is not JSON: it ends early")
	}
	return fmt.Errorf("it is not JSON: %w", err)
}
