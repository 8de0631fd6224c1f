package access

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/larder-registry/larder/proxy/wholefile"
)

// fileVersion is the version of the file's form. A file of another version is ignored.
const fileVersion = 1

// document is the file's content.
type document struct {
	Version   int      `json:"version"`
	Key       string   `json:"key"` // tells of which key the hashes are
	Decisions []record `json:"decisions"`
}

// record is a decision that was a yes.
type record struct {
	Upstream   string    `json:"upstream"`
	Repository string    `json:"repository,omitempty"`
	Right      Right     `json:"right,omitempty"`
	Credential string    `json:"credential"` // its hash
	User       string    `json:"user,omitempty"`
	Confirmed  time.Time `json:"confirmed"`
}

// load reads the decisions of an earlier process. It returns none if there is no file, or if it
// has another version or hashes of another key.
func load(path string, key Key) (map[subject]answer, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var doc document
	if err == nil {
		err = json.Unmarshal(raw, &doc)
	}
	if err != nil {
		return nil, fmt.Errorf("read the access decisions: %w", err)
	}
	if doc.Version != fileVersion || doc.Key != key.id() {
		return nil, nil
	}
	all := make(map[subject]answer, len(doc.Decisions))
	for _, one := range doc.Decisions {
		s := subject{Repository: Repository{one.Upstream, one.Repository}, right: one.Right}
		if len(one.Credential) != 2*len(s.credential) {
			continue
		}
		if _, err := hex.Decode(s.credential[:], []byte(one.Credential)); err != nil {
			continue
		}
		all[s] = answer{one.User, one.Confirmed}
	}
	return all, nil
}

// save replaces the file.
func save(path string, key Key, all map[subject]answer) error {
	doc := document{Version: fileVersion, Key: key.id(), Decisions: make([]record, 0, len(all))}
	for s, one := range all {
		doc.Decisions = append(doc.Decisions, record{s.Upstream, s.Name, s.right, s.credential.String(), one.user, one.at})
	}
	raw, err := json.Marshal(doc)
	if err == nil {
		err = wholefile.Write(path, raw, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the access decisions: %w", err)
	}
	return nil
}
