package cachetest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/opencontainers/go-digest"
)

// records checks the records of the index: each by itself, and those of blobs
// against the files.
func records(dir string, sizes map[digest.Digest]int64) error {
	path := filepath.Join(dir, "index")
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // the next start makes a new one
	}
	db, err := badger.Open(badger.DefaultOptions(path).
		WithReadOnly(true).
		WithBlockCacheSize(0). // to allocate the default takes longer than to read the records
		WithCompression(options.None).
		WithLogger(nil).
		WithMetricsEnabled(false))
	if err != nil {
		return fmt.Errorf("open the index of %s: %w", dir, err)
	}
	defer db.Close()
	var errs []error
	err = db.View(func(txn *badger.Txn) error {
		format, err := formatOf(txn)
		if err != nil {
			errs = append(errs, fmt.Errorf("the format of the index of %s: %w", dir, err))
		}
		check := checker{sizes: sizes, rebuilding: format.Rebuilding}
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := string(it.Item().Key())
			err := it.Item().Value(func(raw []byte) error { return check.record(key, raw) })
			if err != nil {
				errs = append(errs, fmt.Errorf("the record %s of %s: %w", key, dir, err))
			}
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// formatRecord is the record without which an index is not complete.
type formatRecord struct {
	Version    int  `json:"version"`
	Rebuilding bool `json:"rebuilding"`
}

func formatOf(txn *badger.Txn) (rec formatRecord, err error) {
	item, err := txn.Get([]byte("format"))
	if err != nil {
		return rec, err
	}
	err = item.Value(func(raw []byte) error { return json.Unmarshal(raw, &rec) })
	return rec, errors.Join(err, require(rec.Version == 1, "it has another version"))
}

// checker checks records.
type checker struct {
	sizes      map[digest.Digest]int64 // of the blobs that exist
	rebuilding bool                    // only the media type of some manifests is known
}

// record checks one record. FORMAT.md lists the keys.
func (c checker) record(key string, raw []byte) error {
	kind, name, _ := strings.Cut(key, "/")
	switch kind {
	case "blob":
		return c.blob(digest.Digest(name), raw)
	case "used":
		var at int64
		return errors.Join(digest.Digest(name).Validate(), json.Unmarshal(raw, &at), require(at > 0, "it was never used"))
	case "member":
		d, repository, _ := strings.Cut(name, "/")
		var rec struct {
			Size     int64  `json:"size"`
			Manifest bool   `json:"manifest"`
			Proven   string `json:"proven"`
		}
		return errors.Join(digest.Digest(d).Validate(), json.Unmarshal(raw, &rec),
			require(strings.Contains(repository, "/"), "it names no repository"), require(rec.Size >= -1, "its size is invalid"),
			require(slices.Contains([]string{"", "no", "upstream", "repository"}, rec.Proven), "its proof is not known"))
	case "tag":
		var rec struct {
			Digest  digest.Digest `json:"digest"`
			Checked time.Time     `json:"checked"`
			Before  digest.Digest `json:"before"`
		}
		return errors.Join(json.Unmarshal(raw, &rec), rec.Digest.Validate(),
			require(rec.Before == "" || rec.Before.Validate() == nil, "what it pointed to before is not a digest"),
			require(!rec.Checked.IsZero(), "it was never checked"), require(isImage(name), "it names no tag"))
	case "touched":
		var at int64
		return errors.Join(json.Unmarshal(raw, &at), require(isImage(name) && strings.Contains(name, "@"), "it names no digest"))
	case "pin":
		var rec struct {
			Since time.Time `json:"since"`
		}
		return errors.Join(json.Unmarshal(raw, &rec), require(isImage(name), "it names no image"))
	case "pending":
		var rec struct {
			Gone  time.Time `json:"gone"`
			Moves []struct {
				Digest digest.Digest `json:"digest"`
				Seen   time.Time     `json:"seen"`
			} `json:"moves"`
		}
		err := json.Unmarshal(raw, &rec)
		for _, move := range rec.Moves {
			err = errors.Join(err, move.Digest.Validate(), require(!move.Seen.IsZero(), "a move was never seen"))
		}
		return errors.Join(err, require(!rec.Gone.IsZero() || len(rec.Moves) > 0, "nothing is pending"),
			require(isImage(name) && !strings.Contains(name, "@"), "it names no tag"))
	case "next":
		var rec struct {
			Digest digest.Digest `json:"digest"`
		}
		return errors.Join(json.Unmarshal(raw, &rec), rec.Digest.Validate(), require(isImage(name) && !strings.Contains(name, "@"), "it names no tag"))
	case "verdict":
		var rec struct {
			Since  time.Time `json:"since"`
			Source string    `json:"source"`
		}
		return errors.Join(json.Unmarshal(raw, &rec), require(!rec.Since.IsZero(), "it has not expired"),
			require(strings.Contains(name, "@") && isImage(name), "it names no manifest"))
	case "referrers":
		return errors.Join(referrers(raw), require(strings.Contains(name, "@") && isImage(name), "it names no manifest"))
	case "scrub":
		var rec struct {
			After digest.Digest `json:"after"`
			Begun time.Time     `json:"begun"`
		}
		err := errors.Join(json.Unmarshal(raw, &rec), require(name == "position", "its kind is not known"))
		if rec.After != "" {
			err = errors.Join(err, rec.After.Validate())
		}
		return err
	case "m":
		return nil // an earlier release has read a snapshot
	case "format":
		return require(name == "", "its kind is not known") // see formatOf
	}
	return errors.New("its kind is not known")
}

func referrers(raw []byte) error {
	var rec struct {
		Checked     time.Time `json:"checked"`
		Unsupported bool      `json:"unsupported"`
		Manifests   []struct {
			Digest digest.Digest `json:"digest"`
			Size   int64         `json:"size"`
		} `json:"manifests"`
	}
	err := errors.Join(json.Unmarshal(raw, &rec), require(!rec.Checked.IsZero(), "it was never checked"),
		require(len(raw) <= 64<<10, "it does not fit into a snapshot"),
		require(!rec.Unsupported || rec.Manifests == nil, "it is of an upstream without referrers, and has some"))
	for _, m := range rec.Manifests {
		err = errors.Join(err, m.Digest.Validate(), require(m.Size >= 0, "the size of a referrer is invalid"))
	}
	return err
}

func (c checker) blob(d digest.Digest, raw []byte) error {
	var rec struct {
		Size      int64           `json:"size"`
		Fetched   time.Time       `json:"fetched"`
		MediaType string          `json:"mediaType"`
		Children  []digest.Digest `json:"children"`
		Subject   digest.Digest   `json:"subject"`
		Platforms []digest.Digest `json:"platforms"`
		NeedsAll  bool            `json:"needsAll"`
	}
	if err := errors.Join(d.Validate(), json.Unmarshal(raw, &rec)); err != nil {
		return err
	}
	yetToBeRead := c.rebuilding && rec.Size == 0 && rec.MediaType != ""
	if size, here := c.sizes[d]; here && size != rec.Size && !yetToBeRead {
		return fmt.Errorf("it says %d bytes, and the file has %d", rec.Size, size)
	}
	if rec.MediaType == "" && (len(rec.Children) > 0 || rec.Subject != "") {
		return errors.New("it has no media type, and names other blobs")
	}
	isNamed := func(d digest.Digest) bool { return slices.Contains(rec.Children, d) }
	switch platforms := len(rec.Platforms); {
	case rec.MediaType == "" && (platforms > 0 || rec.NeedsAll):
		return errors.New("it has no media type, and is an index")
	case platforms > 0 && rec.NeedsAll:
		return errors.New("it has platforms, and says that it has none")
	case slices.ContainsFunc(rec.Platforms, func(d digest.Digest) bool { return !isNamed(d) }):
		return errors.New("a platform is none of its children")
	}
	named := rec.Children
	if rec.Subject != "" {
		named = append(named, rec.Subject)
	}
	for _, d := range named {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("it names %q: %w", d, err)
		}
	}
	return nil
}

// isImage reports whether a name is <upstream>/<repository>:<tag> or …@<digest>.
func isImage(name string) bool {
	repository, reference, ok := strings.Cut(name, "@")
	if ok {
		return strings.Contains(repository, "/") && digest.Digest(reference).Validate() == nil
	}
	i := strings.LastIndexByte(name, ':')
	return i > 0 && strings.Contains(name[:i], "/") && i < len(name)-1
}

func require(ok bool, otherwise string) error {
	if ok {
		return nil
	}
	return errors.New(otherwise)
}
