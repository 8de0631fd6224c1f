package bucket

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/opencontainers/go-digest"
)

// member returns what a sealed record says of a repository and a digest, and false if there is none.
func (b *Bucket) member(ctx context.Context, host, repository string, d digest.Digest) (record, bool) {
	wanted := record{Upstream: host, Repository: repository, Digest: d}
	if len(b.sealKeys()) == 0 {
		return record{}, false
	}
	if known, ok := b.members.get(wanted); ok {
		if known == nil {
			return record{}, false
		}
		return *known, true
	}
	r, err := b.record(ctx, wanted)
	switch {
	case err == nil:
		b.members.add(wanted, &r, memberFor)
	case errors.Is(err, fs.ErrNotExist):
		b.members.add(wanted, nil, absentFor)
	case errors.Is(err, errForged):
		b.members.add(wanted, nil, failedFor)
	}
	return r, err == nil
}

// tag returns which manifest a tag named by a sealed record that is not older than a time.
func (b *Bucket) tag(ctx context.Context, host, repository, tag string, after time.Time) (record, error) {
	r, err := b.record(ctx, record{Upstream: host, Repository: repository, Tag: tag})
	switch {
	case err != nil:
		return record{}, err
	case !r.Checked.After(after):
		return record{}, errors.New("it is older than what is known")
	case r.Checked.After(time.Now().Add(maxSkew)):
		return record{}, errors.New("it is from the future: the clocks of the nodes differ")
	}
	return r, nil
}

// maxSkew is how far a clock of another node may be ahead.
const maxSkew = 5 * time.Minute

var errForged = errors.New("a record of the bucket is not one of these nodes")

// record reads a sealed record.
func (b *Bucket) record(ctx context.Context, wanted record) (record, error) {
	keys := b.sealKeys()
	if len(keys) == 0 {
		return record{}, fs.ErrNotExist
	}
	name := b.names.record(wanted)
	var sealed []byte
	end, err := b.ask(ctx, func(ctx context.Context) (err error) {
		sealed, err = b.store.read(ctx, name, maxRecord)
		return err
	})
	if err != nil {
		return record{}, err
	}
	end(nil)
	r, err := openRecord(sealed, keys, wanted)
	if err != nil {
		b.metrics.wrong()
		b.Log.Warn("a record of the bucket is not used", "object", name, "error", err)
		return record{}, errors.Join(errForged, err)
	}
	b.metrics.asked(resultRecord)
	return r, nil
}
