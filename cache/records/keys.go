package records

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// The keys begin with the kind of their record. FORMAT.md lists them.
const (
	blobPrefix      = "blob/"
	usedPrefix      = "used/"
	memberPrefix    = "member/"
	tagPrefix       = "tag/"
	pinPrefix       = "pin/"
	pendingPrefix   = "pending/"
	nextPrefix      = "next/"
	verdictPrefix   = "verdict/"
	touchedPrefix   = "touched/"
	referrersPrefix = "referrers/"

	formatKey = "format"
	scrubKey  = "scrub/position"
)

func blobKey(d digest.Digest) []byte { return []byte(blobPrefix + d.String()) }
func usedKey(d digest.Digest) []byte { return []byte(usedPrefix + d.String()) }

func memberKey(r Repository, d digest.Digest) []byte {
	return []byte(membersPrefix(d) + r.String())
}

// membersPrefix begins the keys of all repositories that contain a blob.
func membersPrefix(d digest.Digest) string { return memberPrefix + d.String() + "/" }

func tagKey(r Repository, tag string) []byte { return []byte(tagsPrefix(r) + tag) }

// tagsPrefix begins the keys of all tags of a repository.
func tagsPrefix(r Repository) string { return tagPrefix + r.String() + ":" }

func pendingKey(r Repository, tag string) []byte { return []byte(pendingPrefix + r.Image(tag)) }

func nextKey(r Repository, tag string) []byte { return []byte(nextPrefix + r.Image(tag)) }

func pinKey(p Pin) []byte { return []byte(pinPrefix + p.String()) }

func verdictKey(r Repository, d digest.Digest) []byte {
	return []byte(verdictPrefix + r.Image(d.String()))
}

func touchedKey(r Repository, d digest.Digest) []byte {
	return []byte(touchedPrefix + r.Image(d.String()))
}

func referrersKey(r Repository, subject digest.Digest) []byte {
	return []byte(referrersPrefix + r.Image(subject.String()))
}

// parseMember reads what follows memberPrefix.
func parseMember(name string) (r Repository, d digest.Digest, ok bool) {
	text, repo, ok := strings.Cut(name, "/")
	return parseRepository(repo), digest.Digest(text), ok
}

// parseTag reads what follows tagPrefix. Both results are empty for a key that
// is not one of a tag.
func parseTag(name string) (r Repository, tag string) {
	i := strings.LastIndexByte(name, ':')
	if i < 0 {
		return Repository{}, ""
	}
	return parseRepository(name[:i]), name[i+1:]
}

// parseDigest reads what follows verdictPrefix, touchedPrefix and referrersPrefix.
func parseDigest(name string) (r Repository, d digest.Digest, ok bool) {
	repo, text, ok := strings.Cut(name, "@")
	return parseRepository(repo), digest.Digest(text), ok
}
