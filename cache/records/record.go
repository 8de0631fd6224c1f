package records

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Repository is a repository of one upstream, such as
// {"public.ecr.aws", "nginx/nginx"}.
type Repository struct {
	Upstream, Name string
}

// String returns <upstream>/<name>.
func (r Repository) String() string { return r.Upstream + "/" + r.Name }

// Image returns the name of an image of the repository:
// <upstream>/<name>:<tag> or <upstream>/<name>@<digest>.
func (r Repository) Image(reference string) string {
	if isDigest(reference) {
		return r.String() + "@" + reference
	}
	return r.String() + ":" + reference
}

// isDigest tells a digest from a tag: a digest has a colon, a tag has none.
func isDigest(reference string) bool { return strings.Contains(reference, ":") }

// parseRepository undoes [Repository.String]. A host has no slash.
func parseRepository(s string) Repository {
	upstream, name, _ := strings.Cut(s, "/")
	return Repository{upstream, name}
}

// parseImage undoes [Repository.Image]. An upstream may have a port, so the last
// colon counts.
func parseImage(s string) (r Repository, reference string) {
	repository, reference, ok := strings.Cut(s, "@")
	if !ok {
		i := max(strings.LastIndexByte(s, ':'), 0)
		repository, reference = s[:i], strings.TrimPrefix(s[i:], ":")
	}
	return parseRepository(repository), reference
}

// RepoDigest is a blob or a manifest as one repository has it.
type RepoDigest struct {
	Repository
	Digest digest.Digest
}

// Blob is what is recorded of a blob or a manifest.
type Blob struct {
	Size    int64     `json:"size"`    // in bytes
	Fetched time.Time `json:"fetched"` // when it came into the cache

	// Of a manifest or an index only:
	MediaType string          `json:"mediaType,omitempty"`
	Children  []digest.Digest `json:"children,omitempty"` // the blobs and manifests that it names
	Subject   digest.Digest   `json:"subject,omitempty"`  // the manifest that it refers to, if it is a referrer

	// Of an index only: the children that are images for a platform. NeedsAll says that
	// there are none, so that the index is complete only with all of its children. An
	// index of an earlier release has neither.
	Platforms []digest.Digest `json:"platforms,omitempty"`
	NeedsAll  bool            `json:"needsAll,omitempty"`
}

// IsManifest reports whether this is the complete record of a manifest or an
// index. After the index was lost, the snapshot tells only the media type of a
// manifest, until its file is read.
func (b Blob) IsManifest() bool { return b.MediaType != "" && b.Size > 0 }

// decodeManifest decodes the record of a manifest. It leaves rec as it is for the
// record of another blob: there are many of these, and it does not decode them.
func decodeManifest(raw []byte, rec *Blob) error {
	if !bytes.Contains(raw, []byte(`"mediaType"`)) {
		return nil
	}
	return json.Unmarshal(raw, rec)
}

// Member says that a repository contains a blob or a manifest.
type Member struct {
	Size     int64 `json:"size"`               // in bytes by the manifest that names it, or -1 if none does
	Manifest bool  `json:"manifest,omitempty"` // the repository contains it as a manifest or an index
	// Role is more exact than Manifest. It is empty for a blob, and in the records of
	// earlier releases: their manifests may be blobs that an index names.
	Role Role `json:"role,omitempty"`
	// Proven says how it is known. Records of earlier releases do not tell that.
	Proven Proof `json:"proven,omitempty"`
}

// Proof is how it is known that a repository contains a blob or a manifest.
type Proof string

const (
	// Proven says that its bytes came from the repository, that its storage has confirmed
	// them, or that an imported bundle says so.
	Proven Proof = "repository"
	// ProvenElsewhere says that a manifest or the registry names it, and that the upstream was
	// known to have the bytes in another of its repositories.
	ProvenElsewhere Proof = "upstream"
	// ByWord says that a manifest or the registry names it, and that nothing else is known.
	ByWord Proof = "no"
	// NotTold is the proof of records of earlier releases, which did not tell a manifest's
	// word from more.
	NotTold Proof = ""
)

// proofs are all proofs. A later one is the better one. Snapshots rely on their order.
var proofs = []Proof{ByWord, ProvenElsewhere, NotTold, Proven}

// UnmarshalText is for encoding.TextUnmarshaler. It allocates nothing for a proof that is known:
// a hit may read a membership.
func (p *Proof) UnmarshalText(text []byte) error {
	for _, known := range proofs {
		if string(text) == string(known) {
			*p = known
			return nil
		}
	}
	*p = Proof(text)
	return nil
}

// with returns the better of two proofs. One of a later release that is not known counts as
// no proof.
func (p Proof) with(other Proof) Proof {
	if slices.Index(proofs, other) > slices.Index(proofs, p) {
		return other
	}
	return p
}

// Role is what a repository contains a manifest as.
type Role string

// A manifest is not served as a blob, unless a manifest of the repository names it as
// one or the upstream says that it is one.
const (
	ManifestOnly    Role = "manifest"
	ManifestAndBlob Role = "both"
)

// IsBlob reports whether the repository is known to contain the digest as a blob.
func (m Member) IsBlob() bool { return !m.Manifest || m.Role == ManifestAndBlob }

// With returns a later membership with the role that was known before, too, and with the
// better proof. That the upstream called a manifest a blob does not count, as registries do
// that for all of them: only a manifest that names it as one does, and tells a size. The
// size of m comes first.
func (m Member) With(known Member) Member {
	merged := m
	merged.Proven = m.Proven.with(known.Proven)
	if m.Size < 0 {
		merged.Size = known.Size
	}
	switch {
	case m.Manifest == known.Manifest && m.Role == known.Role:
	case m.IsBlob(), known.IsBlob() && known.Size >= 0:
		merged.Manifest, merged.Role = true, ManifestAndBlob
	default:
		merged.Manifest, merged.Role = true, ManifestOnly
	}
	return merged
}

// Tag is the manifest that a tag points to.
type Tag struct {
	Digest  digest.Digest `json:"digest"`
	Checked time.Time     `json:"checked"` // when the upstream last confirmed it
	// Before is the latest manifest that a pinned tag pointed to and that is whole here, while
	// that of Digest is not; else empty.
	Before digest.Digest `json:"before,omitempty"`
	// Local says that an import gave the tag an image of its own: it is not compared with its
	// upstream.
	Local bool `json:"local,omitempty"`
}

// Pin names an image that is never evicted.
type Pin struct {
	Repository
	Reference string // a tag or a digest
}

// String returns the name of the image, see [Repository.Image].
func (p Pin) String() string { return p.Image(p.Reference) }

// PinRecord is what is recorded of a pin.
type PinRecord struct {
	Since time.Time `json:"since"`
	// AllPlatforms extends the pin of an index to platforms that are not in the
	// cache yet.
	AllPlatforms bool `json:"allPlatforms,omitempty"`
	// Bundle names the bundle from which the image was imported, for a pin that the import
	// made.
	Bundle string `json:"bundle,omitempty"`
}

// Expiry says since when, and by which lifecycle rule, an image has expired.
type Expiry struct {
	Since  time.Time `json:"since"`
	Rule   int       `json:"rule"`   // its priority
	Source string    `json:"source"` // whose rule it is: "ecr" or "local"
}

// Verdict says that a lifecycle rule has expired an image of a repository.
type Verdict struct {
	Repository Repository
	Digest     digest.Digest
	Expiry
}

// ScrubPosition is the progress of the background scrub. The zero value is that
// of a cache that was never scrubbed.
type ScrubPosition struct {
	After digest.Digest `json:"after,omitempty"` // the last blob that was checked; empty once the pass is over
	Begun time.Time     `json:"begun"`
	// AtOnce says that the index was lost, so the pass begins without its usual
	// rest.
	AtOnce bool `json:"atOnce,omitempty"`
}

// Over reports whether the latest pass has ended.
func (p ScrubPosition) Over() bool { return p.After == "" && !p.Begun.IsZero() }

// decodeSeconds decodes a time: seconds since 1970, or 0 and an error.
func decodeSeconds(raw []byte) (int64, error) {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, err
	}
	return n, nil
}
