package bundle

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Documents are the files of a bundle or a layout other than its blobs, by their names. They
// tell what the blobs are.
type Documents map[string][]byte

// limits are the sizes of the largest documents, in bytes.
var limits = map[string]int64{
	layoutFile:      4 << 10,
	indexFile:       4 << 20,
	dockerFile:      4 << 20,
	DescriptionFile: maxDescription,
	SignatureFile:   maxSignature,
}

// MaxDocuments is how many bytes the documents have at most, together.
const MaxDocuments = maxDescription + 2*(4<<20) + 4<<10 + maxSignature

// Description returns the description of a bundle, or nil for another layout. It ensures that
// the other documents are those that the description names.
func (docs Documents) Description() (*Description, error) {
	for _, name := range slices.Sorted(maps.Keys(docs)) {
		if limit, ok := limits[name]; !ok || int64(len(docs[name])) > limit {
			return nil, blame(name, fmt.Errorf("it has %d bytes, and may have %d", len(docs[name]), limit))
		}
	}
	raw := docs[DescriptionFile]
	if raw == nil {
		if docs[SignatureFile] != nil {
			return nil, blame(SignatureFile, errors.New("there is no "+DescriptionFile+" that it could sign"))
		}
		return nil, nil
	}
	d, err := ParseDescription(raw)
	if err != nil {
		return nil, blame(DescriptionFile, err)
	}
	for _, named := range []struct {
		name string
		want digest.Digest
	}{{layoutFile, d.Files.Layout}, {indexFile, d.Files.Index}, {dockerFile, d.Files.Docker}} {
		raw, ok := docs[named.name]
		switch {
		case !ok && named.want == "":
		case !ok:
			err = fmt.Errorf("it is missing, and %s names it", DescriptionFile)
		case named.want == "":
			err = fmt.Errorf("%s does not name it", DescriptionFile)
		case !sameDigest(raw, named.want):
			err = fmt.Errorf("it does not match its digest in %s", DescriptionFile)
		}
		if err != nil {
			return nil, blame(named.name, err)
		}
	}
	return d, nil
}

// Signature returns the signature of the description, or nil.
func (docs Documents) Signature() []byte { return docs[SignatureFile] }

// Layout returns what the documents say about images. d is what [Documents.Description] returned.
// blobs are those of a layout of another tool; a bundle names its own.
func (docs Documents) Layout(d *Description, blobs []digest.Digest) (*Layout, error) {
	if err := docs.complete(); err != nil {
		return nil, err
	}
	here := make(digests, len(blobs))
	for _, b := range blobs {
		here.add(b)
	}
	return newLayout(docs, d, here)
}

// complete ensures that there is what every layout has.
func (docs Documents) complete() error {
	switch {
	case docs[indexFile] != nil && docs[layoutFile] != nil:
		return nil
	case docs[indexFile] == nil && docs[dockerFile] != nil:
		return errDocker
	}
	return fmt.Errorf("it is no OCI layout, or it was truncated: it has no %s or no %s", indexFile, layoutFile)
}
