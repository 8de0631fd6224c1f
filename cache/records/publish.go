package records

import (
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Image is all that is recorded of an image that did not come from its upstream.
type Image struct {
	Repository
	// Manifests are the records of its manifests: its own, those below it, and those of its
	// referrers.
	Manifests map[digest.Digest]Blob
	// Members are the memberships of everything that these name, and of themselves.
	Members map[digest.Digest]Member
	// Name and Tag are a tag and its record; nothing is pending for the tag then. An empty name
	// stands for none.
	Name string
	Tag  Tag
	// Pin and PinRecord are a pin of the image. An empty reference stands for none.
	Pin       Pin
	PinRecord PinRecord
}

// Publish records an image in one step: a crash or a power cut leaves all of it or nothing.
// When it returns, it is durable.
//
// An image of more than some 2,000 records may not fit into one step. Then its name comes in
// the last one, and the memberships of its manifests, which make these known, as late as
// possible: a crash may leave manifests without the name.
func (ix *Index) Publish(image Image) error {
	var entries []entry
	for _, d := range slices.Sorted(maps.Keys(image.Manifests)) {
		entries = append(entries, entry{blobKey(d), image.Manifests[d]})
	}
	for _, ofManifests := range []bool{false, true} { // the memberships of manifests make them visible
		for _, d := range slices.Sorted(maps.Keys(image.Members)) {
			if m := image.Members[d]; m.Manifest == ofManifests {
				entries = append(entries, entry{memberKey(image.Repository, d), m})
			}
		}
	}
	if image.Name != "" {
		entries = append(entries, entry{pendingKey(image.Repository, image.Name), nil}, entry{tagKey(image.Repository, image.Name), image.Tag})
	}
	if image.Pin.Reference != "" {
		entries = append(entries, entry{pinKey(image.Pin), image.PinRecord})
	}
	if err := ix.db.putTogether(entries); err != nil {
		return err
	}
	for d, rec := range image.Manifests {
		ix.subjects.add(d, rec.Subject)
	}
	return nil
}
