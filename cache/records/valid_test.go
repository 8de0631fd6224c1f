package records

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"pgregory.net/rapid"

	"github.com/larder-registry/larder/cache/disk"
)

// These tests are in the package because no method writes such records.

// hostile generates strings as a registry might choose them.
func hostile() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,8}`),
		rapid.String(),
		rapid.StringMatching(`[a-z/:@]{0,12}`),
		rapid.Map(rapid.IntRange(64_900, 65_600), func(n int) string { return strings.Repeat("x", n) }),
		rapid.Just(strings.Repeat("y", 200_000)),
	)
}

func anyDigest() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.Map(rapid.SampledFrom([]digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512}), func(a digest.Algorithm) string {
			return a.FromString("x").String()
		}),
		rapid.Map(rapid.IntRange(0, 20), func(n int) string { return digest.FromString(fmt.Sprint(n)).String() }),
		hostile(),
	)
}

// anyRecord generates the key and the value of a record of any kind.
func anyRecord(t *rapid.T) (key, value string) {
	draw := func(what string) string { return hostile().Draw(t, what) }
	d := anyDigest().Draw(t, "digest")
	repo := draw("upstream") + "/" + draw("repository")
	seconds := rapid.OneOf(rapid.Int64Range(0, 1<<31), rapid.Int64()).Draw(t, "time")
	var rec any
	switch rapid.IntRange(0, 6).Draw(t, "kind") {
	case 0:
		key, rec = blobPrefix+d, Blob{Size: 1, MediaType: draw("media type")}
	case 1:
		key, rec = usedPrefix+d, seconds
	case 2:
		key, rec = memberPrefix+d+"/"+repo, Member{
			Size: seconds, Manifest: seconds%2 == 0, Role: Role(draw("role")), Proven: rapid.SampledFrom(append(proofs, "later")).Draw(t, "proof"),
		}
	case 3:
		key = tagPrefix + repo + ":" + draw("tag")
		rec = map[string]string{"digest": anyDigest().Draw(t, "tagged"), "checked": rapid.SampledFrom([]string{
			"2026-01-02T03:04:05Z", "9999-12-31T23:59:59-23:00", "0000-01-01T00:00:00+23:00", "never",
		}).Draw(t, "checked")}
	case 4:
		key, rec = pinPrefix+repo+":"+draw("tag"), PinRecord{AllPlatforms: true}
	case 5:
		key, rec = referrersPrefix+repo+"@"+d, Referrers{Manifests: []ocispec.Descriptor{{ArtifactType: draw("artifact type")}}}
	default:
		key, rec = verdictPrefix+repo+"@"+d, Expiry{Rule: 1, Source: draw("source")}
	}
	raw, err := json.Marshal(rec)
	if err != nil || rapid.IntRange(0, 9).Draw(t, "damage") == 0 {
		return key, draw("value")
	}
	return key, string(raw)
}

// emptyDatabase returns a database in memory.
func emptyDatabase(t interface {
	Fatal(...any)
	Cleanup(func())
}) *database {
	log := slog.New(slog.DiscardHandler)
	o := opener{disk.At(""), disk.NewHealth(log), 2, log}
	db, err := o.open(bulkOptions("", log).WithInMemory(true))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.badger.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return db
}

func TestSnapshotIsReadAsItIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		db := emptyDatabase(t)
		good := map[string]any{
			string(tagKey(Repository{"registry.test", "a/b"}, "v1")):                 Tag{Digest: digest.FromString("a"), Checked: time.Unix(1_700_000_000, 0).UTC()},
			string(memberKey(Repository{"registry.test", "a/b"}, sha512OfA)):         Member{Size: 7, Manifest: true, Role: ManifestOnly, Proven: Proven},
			string(memberKey(Repository{"registry.test", "a/c"}, sha512OfA)):         Member{Size: 8},
			string(pinKey(Pin{Repository{"registry.test", "a/b"}, "v1"})):            PinRecord{AllPlatforms: true},
			string(usedKey(digest.FromString("a"))):                                  int64(5),
			string(verdictKey(Repository{"z.test", "z"}, digest.FromString("last"))): Expiry{Rule: 9},
			string(referrersKey(Repository{"a.test", "a"}, sha512OfA)):               Referrers{Manifests: []ocispec.Descriptor{{Digest: sha512OfA}}},
		}
		written := make(map[string]string)
		for range rapid.IntRange(0, 30).Draw(t, "records") {
			key, value := anyRecord(t)
			written[key] = value
		}
		for key, rec := range good {
			raw, err := json.Marshal(rec)
			if err != nil {
				t.Fatal(err)
			}
			written[key] = string(raw)
		}
		err := db.update(func(b *batch) error {
			for key, value := range written {
				if len(key) < 65_000 && len(value) < 500_000 { // Badger refuses others
					if err := b.writes.Set([]byte(key), []byte(value)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var snapshot bytes.Buffer
		if err := writeSnapshot(&snapshot, db, 1, func() error { return nil }); err != nil {
			t.Fatal(err)
		}

		restored := emptyDatabase(t)
		if err := loadNew(restored, bytes.NewReader(snapshot.Bytes())); err != nil {
			t.Fatalf("the snapshot is refused: %v", err)
		}
		for key := range good {
			var raw json.RawMessage
			if err := restored.get([]byte(key), &raw); err != nil || string(raw) != written[key] {
				t.Fatalf("%s: %s instead of %s, %v", key, raw, written[key], err)
			}
		}
		if err := restored.each("", func(name, _ []byte) error {
			if _, ok := written[string(name)]; !ok {
				t.Fatalf("%.99q was not written", name)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

var sha512OfA = digest.SHA512.FromString("a")

// TestBadRecordOfASnapshotCostsItselfAlone reads snapshots as earlier releases wrote them.
func TestBadRecordOfASnapshotCostsItselfAlone(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	repo, d := Repository{"registry.test", "a"}, digest.FromString("a")
	member := snapshotMember{repo.String(), Member{Size: 1}}
	for name, write := range map[string]func(e *encoder){
		"a long media type": func(e *encoder) {
			e.blob(snapshotted{digest: digest.FromString("b"), mediaType: long})
			e.blob(snapshotted{digest: digest.FromString("c"), mediaType: long})
		},
		"a long repository": func(e *encoder) {
			e.blob(snapshotted{digest: d, members: []snapshotMember{{repo: "registry.test/" + long}}})
		},
		"a long tag": func(e *encoder) { e.tag(repo, long, Tag{Digest: d}) },
		"a tag of the year 10000": func(e *encoder) {
			e.tag(repo, "x", Tag{Digest: d, Checked: time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC)})
		},
		"a long value":    func(e *encoder) { e.record("pin/a/b:c", []byte(long)) },
		"a damaged value": func(e *encoder) { e.record("pin/a/b:c", []byte("{")) },
		"an empty key":    func(e *encoder) { e.record("", []byte("{}")) },
		"records out of order": func(e *encoder) {
			e.tag(repo, "z", Tag{Digest: d})
			e.tag(repo, "b", Tag{Digest: d})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var snapshot bytes.Buffer
			e := newEncoder(&snapshot, 1)
			e.blob(snapshotted{digest: d, used: 5, members: []snapshotMember{member}})
			write(e)
			e.tag(repo, "zz", Tag{Digest: d})
			e.record("pin/registry.test/a:zz", []byte("{}"))
			if err := e.finish(); err != nil {
				t.Fatal(err)
			}
			db := emptyDatabase(t)
			if err := loadNew(db, bytes.NewReader(snapshot.Bytes())); err != nil {
				t.Fatal(err)
			}
			var keys []string
			if err := db.each("", func(name, _ []byte) error { keys = append(keys, string(name)); return nil }); err != nil {
				t.Fatal(err)
			}
			keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasSuffix(key, ":z") })
			want := []string{string(memberKey(repo, d)), "pin/registry.test/a:zz", string(tagKey(repo, "zz")), string(usedKey(d))}
			if diff := cmp.Diff(want, keys); diff != "" {
				t.Error(diff)
			}
		})
	}
}
