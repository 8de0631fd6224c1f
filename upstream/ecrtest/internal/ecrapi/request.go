package ecrapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

// request is a call whose signature is valid.
type request struct {
	*frontend.Exchange
	caller iam.Principal
	body   []byte
}

// decode reads the body into in. It answers a call whose body has another form;
// ok is then false.
func (r request) decode(in any) (ok bool) {
	dec := json.NewDecoder(bytes.NewReader(r.body))
	dec.DisallowUnknownFields() // or parameters that are not implemented would be ignored
	if err := dec.Decode(in); err != nil {
		r.fail("InvalidParameterException", err.Error())
		return false
	}
	return true
}

// permit reports whether the caller's own policy allows an action, and answers the
// call if it does not.
func (r request) permit(action, resource string) bool {
	denied := r.caller.Denied(action, resource, r.caller.Account, nil)
	if denied != "" {
		r.fail("AccessDeniedException", denied)
	}
	return denied == ""
}

// reply sends the result of the call.
func (r request) reply(result any) { r.ReplyJSON(http.StatusOK, contentType, result) }

// fail sends an error with status 400, which all errors of a caller have.
func (r request) fail(code, message string) {
	fail(r.Exchange, frontend.Error{Status: http.StatusBadRequest, Code: code, Message: message})
}

// contentType is that of the protocol.
const contentType = "application/x-amz-json-1.1"

// fail sends an error in the form of the protocol.
func fail(x *frontend.Exchange, e frontend.Error) {
	x.ReplyJSON(e.Status, contentType, struct {
		Type    string `json:"__type"`
		Message string `json:"message,omitempty"`
	}{e.Code, e.Message})
}

// timestamp returns a time in the form of the protocol: seconds since the Unix
// epoch, to the millisecond.
func timestamp(t time.Time) float64 {
	return float64(t.UnixMilli()) / float64(time.Second/time.Millisecond)
}
