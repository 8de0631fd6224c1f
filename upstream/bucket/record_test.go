package bucket_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/upstream"
	"github.com/larder-registry/larder/upstream/bucket/buckettest"
)

const tagName = "larder/" + host + "/tags/" + repository + "/@/v1"

func memberName(d digest.Digest) string {
	return "larder/" + host + "/members/" + repository + "/@/sha256-" + d.Encoded()
}

// filled is a store with an image that a node with a key has put there: a manifest with the tag v1, and a layer.
func filled(t *testing.T) (store *buckettest.Store, writer *node, manifest, layer digest.Digest) {
	t.Helper()
	store = buckettest.Start(t)
	writer = start(t, store, nil)
	key(t, writer, 1)
	manifest = writer.add([]byte(`{"schemaVersion": 2}`))
	writer.tags["v1"] = manifest
	_, raw, err := writer.source.Manifest(t.Context(), repository, "v1", false)
	if err != nil {
		t.Fatal(err)
	}
	writer.keep(manifest, raw)
	layer = writer.pull(t, content(1, 1000))
	return store, writer, manifest, layer
}

// stranded is a node of another cluster, whose upstream cannot be reached and which knows nothing.
func stranded(t *testing.T, store *buckettest.Store) *node {
	t.Helper()
	n := start(t, store, readOnly)
	n.knows, n.dead = false, errDead
	return n
}

// wantTag wants the manifest that a tag names, or an error if it is empty.
func (n *node) wantTag(t *testing.T, want digest.Digest) {
	t.Helper()
	desc, raw, err := n.source.Manifest(t.Context(), repository, "v1", false)
	switch {
	case want == "" && err == nil:
		t.Errorf("the tag was given: %s", desc.Digest)
	case want != "" && (err != nil || desc.Digest != want || digest.FromBytes(raw) != want):
		t.Errorf("the tag names %q (%d bytes), %v; want %s\n%s", desc.Digest, len(raw), err, want, n.log)
	}
}

// wantBlob wants a blob to be given, or not.
func (n *node) wantBlob(t *testing.T, d digest.Digest, given bool) {
	t.Helper()
	part, err := n.source.OpenBlob(t.Context(), repository, d, upstream.Range{Len: 1000})
	if (err == nil) != given {
		t.Errorf("the blob is given: %t (%v), want %t", err == nil, err, given)
	}
	if err == nil {
		part.Body.Close()
	}
}

func TestHolderOfTheKeyGetsEverythingWithoutTheUpstream(t *testing.T) {
	store, _, manifest, layer := filled(t)
	n := stranded(t, store)
	key(t, n, 1)
	n.wantTag(t, manifest)
	if n.aged <= 0 {
		t.Error("the tag's age was not told")
	}
	n.wantBlob(t, layer, true)
	if size, err := n.source.BlobSize(t.Context(), repository, layer); err != nil || size != 1000 {
		t.Errorf("the blob has %d bytes, %v", size, err)
	}
}

func TestKeysAreReplacedTwoAtATime(t *testing.T) {
	store, writer, manifest, layer := filled(t)
	both := stranded(t, store)
	key(t, both, 2, 1)
	both.wantTag(t, manifest)
	both.wantBlob(t, layer, true)
	key(t, writer, 2, 1)
	after := stranded(t, store)
	key(t, after, 2)
	after.wantTag(t, "")
	after.wantBlob(t, layer, false)
	if _, _, err := writer.source.Manifest(t.Context(), repository, "v1", false); err != nil {
		t.Fatal(err)
	}
	writer.keep(manifest, []byte(`{"schemaVersion": 2}`))
	writer.settle(t)
	sealedAnew := stranded(t, store)
	key(t, sealedAnew, 2)
	sealedAnew.wantTag(t, manifest)
}

func TestNodeWithoutTheKeyIsToldNothing(t *testing.T) {
	store, _, _, layer := filled(t)
	for name, keys := range map[string][]byte{"none": nil, "another": {9}} {
		n := stranded(t, store)
		if keys != nil {
			key(t, n, keys[0])
		}
		n.wantTag(t, "")
		n.wantBlob(t, layer, false)
		if _, err := n.source.BlobSize(t.Context(), repository, layer); err == nil {
			t.Errorf("with %s the size was told", name)
		}
	}
}

func TestNodeWithoutTheKeyWritesNoRecords(t *testing.T) {
	store := buckettest.Start(t)
	n := start(t, store, nil)
	n.tags["v1"] = n.add([]byte("{}"))
	if _, _, err := n.source.Manifest(t.Context(), repository, "v1", false); err != nil {
		t.Fatal(err)
	}
	n.pull(t, content(1, 100))
	for _, name := range names(store.Objects()) {
		if strings.Contains(name, "/members/") || strings.Contains(name, "/tags/") {
			t.Errorf("%s was put", name)
		}
	}
}

// Tags are the upstream's as long as it answers, whatever that is.
func TestTagIsNotTakenFromTheBucketWhileTheUpstreamAnswers(t *testing.T) {
	store, _, _, _ := filled(t)
	for name, answer := range map[string]error{"not there": fs.ErrNotExist, "denied": fs.ErrPermission} {
		n := stranded(t, store)
		key(t, n, 1)
		n.dead = fmt.Errorf("it says: %w", answer)
		n.wantTag(t, "")
		if asked := store.Requests("GET"); len(asked) > 0 && strings.Contains(asked[len(asked)-1].Name, "/tags/") {
			t.Errorf("%s: the bucket was asked about the tag", name)
		}
	}
	n := stranded(t, store)
	key(t, n, 1)
	n.dead = nil
	moved := n.add([]byte(`{"schemaVersion": 2, "moved": true}`))
	n.tags["v1"] = moved
	n.wantTag(t, moved)
}

// A runner that may write the bucket, and has no key.
func TestWriterOfTheBucketWithoutTheKeyChoosesNothing(t *testing.T) {
	evil := []byte(`{"schemaVersion": 2, "evil": true}`)
	d := digest.FromBytes(evil)
	for name, write := range map[string]func(store *buckettest.Store, manifest, layer digest.Digest){
		"a tag of its own": func(store *buckettest.Store, _, _ digest.Digest) {
			store.Put(tagName, []byte(strings.Repeat("0", 64)+"\n"+`{"upstream":"`+host+`","repository":"`+repository+`","tag":"v1","digest":"`+d.String()+`"}`))
		},
		"a tag sealed for another name": func(store *buckettest.Store, manifest, _ digest.Digest) {
			store.Put(tagName, store.Objects()[memberName(manifest)])
		},
		"a tag without a seal": func(store *buckettest.Store, _, _ digest.Digest) {
			store.Put(tagName, []byte(`{"digest":"`+d.String()+`"}`))
		},
		"a tag with a changed text": func(store *buckettest.Store, manifest, _ digest.Digest) {
			store.Put(tagName, bytes.ReplaceAll(store.Objects()[tagName], []byte(manifest.Encoded()), []byte(d.Encoded())))
		},
		"an endless tag": func(store *buckettest.Store, _, _ digest.Digest) { store.Put(tagName, make([]byte, 1<<20)) },
		"another manifest under the digest's name": func(store *buckettest.Store, manifest, _ digest.Digest) {
			store.Put(blobName(manifest), evil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, _, manifest, layer := filled(t)
			store.Put(blobName(d), evil)
			write(store, manifest, layer)
			n := stranded(t, store)
			key(t, n, 1)
			n.wantTag(t, "")
		})
	}
	for name, member := range map[string]func(store *buckettest.Store, layer digest.Digest) []byte{
		"a membership of its own": func(*buckettest.Store, digest.Digest) []byte {
			return []byte(strings.Repeat("0", 64) + "\n" + `{"upstream":"` + host + `","repository":"` + repository + `","digest":"` + d.String() + `"}`)
		},
		"the membership of another": func(store *buckettest.Store, layer digest.Digest) []byte {
			return store.Objects()[memberName(layer)]
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, _, _, layer := filled(t)
			store.Put(blobName(d), evil)
			store.Put(memberName(d), member(store, layer))
			n := stranded(t, store)
			key(t, n, 1)
			n.wantBlob(t, d, false)
			if _, _, err := n.source.Manifest(t.Context(), repository, d.String(), false); err == nil {
				t.Error("the manifest was given")
			}
			if n.Status().Wrong == 0 || !strings.Contains(n.log.String(), memberName(d)) {
				t.Errorf("%d are counted as wrong; the log:\n%s", n.Status().Wrong, n.log)
			}
		})
	}
}

// timeOf returns when a record says that the upstream was asked.
func timeOf(t *testing.T, sealed []byte) time.Time {
	t.Helper()
	_, text, _ := bytes.Cut(sealed, []byte("\n"))
	var r struct{ Checked time.Time }
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	return r.Checked
}

// A record that was true once does not take a tag back.
func TestOldRecordDoesNotTakeATagBack(t *testing.T) {
	store, writer, old, _ := filled(t)
	record := store.Objects()[tagName]
	moved := writer.add([]byte(`{"schemaVersion": 2, "moved": true}`))
	writer.tags["v1"] = moved
	_, raw, err := writer.source.Manifest(t.Context(), repository, "v1", false)
	if err != nil {
		t.Fatal(err)
	}
	writer.keep(moved, raw)
	writer.settle(t)
	n := stranded(t, store)
	key(t, n, 1)
	n.wantTag(t, moved)
	store.Put(tagName, record)
	n.tagAt = timeOf(t, store.Objects()[tagName]).Add(1)
	n.wantTag(t, "")
	fresh := stranded(t, store)
	key(t, fresh, 1)
	fresh.wantTag(t, old) // within tags.stale_if_error
}
