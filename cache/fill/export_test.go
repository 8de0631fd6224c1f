package fill

import (
	"context"
	"io"
)

// Stream is a stream for tests of the rule by which a broken connection is replaced: its
// pauses and bounds are of no other face.
type Stream interface {
	io.Reader
	HangUp()
}

type testStream struct{ *stream }

func (s testStream) HangUp() { s.hangUp() }

// NewStream reads all of a blob. patient says that clients have their headers; spare, that
// other connections do the work.
func NewStream(ctx context.Context, fetch Fetch, size int64, patient, spare bool) Stream {
	return testStream{&stream{
		ctx:   ctx,
		fetch: fetch,
		tries: tries{retry: Retry{}.withDefaults(), patient: patient, spare: spare},
		size:  size,
	}}
}
