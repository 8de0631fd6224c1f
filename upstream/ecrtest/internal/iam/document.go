package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ParsePolicy reads an IAM policy document. It returns an error for everything that
// this package does not evaluate, such as conditions.
func ParsePolicy(document []byte) (Policy, error) {
	var doc struct {
		Version   string
		ID        string `json:"Id"`
		Statement oneOrMore[struct {
			Sid       string
			Effect    string
			Action    oneOrMore[string]
			Resource  oneOrMore[string]
			Principal principals
		}]
	}
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("reading a policy: %w", err)
	}
	if doc.Version != "2012-10-17" && doc.Version != "2008-10-17" {
		return nil, fmt.Errorf("reading a policy: its version is %q, want 2012-10-17 or 2008-10-17", doc.Version)
	}
	var p Policy
	for i, st := range doc.Statement {
		if st.Effect != "Allow" && st.Effect != "Deny" || len(st.Action) == 0 {
			return nil, fmt.Errorf("reading a policy: statement %d needs an action, and the effect Allow or Deny", i)
		}
		p = append(p, Statement{
			Deny: st.Effect == "Deny", Actions: st.Action, Resources: st.Resource, Principals: st.Principal,
		})
	}
	return p, nil
}

// oneOrMore decodes a single value, or an array of values.
type oneOrMore[T any] []T

func (o *oneOrMore[T]) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if raw[0] == '[' {
		return dec.Decode((*[]T)(o))
	}
	*o = make([]T, 1)
	return dec.Decode(&(*o)[0])
}

// principals decodes "*", or {"AWS": …}.
type principals []string

func (p *principals) UnmarshalJSON(raw []byte) error {
	if string(raw) == `"*"` {
		*p = principals{"*"}
		return nil
	}
	var kinds map[string]oneOrMore[string]
	if err := json.Unmarshal(raw, &kinds); err != nil {
		return err
	}
	if len(kinds) != 1 || len(kinds["AWS"]) == 0 {
		return errors.New(`a principal must be "*" or of the kind AWS`)
	}
	*p = principals(kinds["AWS"])
	return nil
}
