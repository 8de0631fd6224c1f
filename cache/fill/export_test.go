package fill

import (
	"context"
	"io"
)

// Stream is a stream for tests of how a broken connection is replaced. The pauses and limits
// of this are not visible through the face of the package.
type Stream interface {
	io.Reader
	HangUp()
}

type testStream struct{ *stream }

func (s testStream) HangUp() { s.hangUp() }

// NewStream returns a stream of all of a blob. patient says that clients have their headers;
// spare, that the fill has other connections.
func NewStream(ctx context.Context, fetch Fetch, size int64, patient, spare bool) Stream {
	return testStream{&stream{
		ctx:   ctx,
		fetch: fetch,
		tries: tries{retry: Retry{}.withDefaults(), patient: patient, spare: spare},
		end:   size,
		size:  size,
	}}
}
