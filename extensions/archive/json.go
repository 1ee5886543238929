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
		if err := o.set(key, v, known); err != nil {
			return nil, err
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonWords(err)
	}
	return o, onlyOne(d)
}

// set keeps the value of a known key.
func (o object) set(key string, v json.RawMessage, known []string) error {
	for _, k := range known {
		if !strings.EqualFold(k, key) {
			continue
		}
		if k != key {
			return fmt.Errorf("its key %s must be written %q", quoted(key), k)
		}
		if _, ok := o[k]; ok {
			return fmt.Errorf("it has the key %q twice", k)
		}
		o[k] = v
	}
	return nil
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

// list returns the elements of a key that is an array; nil where it has none.
func (o object) list(key string, most int) ([]json.RawMessage, error) {
	if !o.has(key) {
		return nil, nil
	}
	l, err := elements(o[key], most)
	if err != nil {
		return nil, fmt.Errorf("its %q: %w", key, err)
	}
	return l, nil
}

// texts returns the elements of a key that is an array of strings.
func (o object) texts(key string, most int) ([]string, error) {
	l, err := o.list(key, most)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(l))
	for i, raw := range l {
		if err := json.Unmarshal(raw, &out[i]); err != nil {
			return nil, fmt.Errorf("its %q has an element that is no string", key)
		}
	}
	return out, nil
}

// tooManyError tells that an array is longer than allowed.
type tooManyError struct{ most int }

func (e *tooManyError) Error() string {
	return fmt.Sprintf("it has more than %d elements", e.most)
}

// elements splits an array. It stops where there are too many: a few bytes
// each, they would take far more memory than the document.
func elements(data []byte, most int) ([]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	t, err := d.Token()
	if err != nil {
		return nil, jsonWords(err)
	}
	if t == nil {
		return nil, onlyOne(d) // null
	}
	if t != json.Delim('[') {
		return nil, errors.New("it is not a list")
	}
	var out []json.RawMessage
	for d.More() {
		if len(out) == most {
			return nil, &tooManyError{most}
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, jsonWords(err)
		}
		out = append(out, v)
	}
	if _, err := d.Token(); err != nil {
		return nil, jsonWords(err)
	}
	return out, onlyOne(d)
}

// onlyOne checks that nothing follows a document.
func onlyOne(d *json.Decoder) error {
	switch _, err := d.Token(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return jsonWords(err)
	}
	return errors.New("there is something after its end")
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
