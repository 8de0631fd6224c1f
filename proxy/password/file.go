package password

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/larder-registry/larder/proxy/livefile"
)

const (
	// maxFile bounds the file, in bytes: some 10,000 users.
	maxFile = 1 << 20
	// maxCost is the largest cost of a hash. Each step doubles the time of a comparison, which
	// takes about a second at this one.
	maxCost = 14
)

// users are those of a file. They are immutable.
type users struct {
	hashes map[string][]byte // by user name
	names  []string          // sorted
	sum    [sha256.Size]byte // of the file
}

// hashForm is what htpasswd -B and its like write.
var hashForm = regexp.MustCompile(`^\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}$`)

// readFile reads a file in the form of Apache's htpasswd. Its errors name the line, and show
// nothing of it.
func readFile(path string) (*users, error) {
	text, err := livefile.Read(path, maxFile)
	if err != nil {
		return nil, fmt.Errorf("read the users of auth.htpasswd: %w", err)
	}
	u, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the users of auth.htpasswd: %s: %w", path, err)
	}
	return u, nil
}

// Count returns how many users a file has. It must be valid, as for [Open].
func Count(file string) (int, error) {
	u, err := readFile(file)
	if err != nil {
		return 0, err
	}
	return len(u.names), nil
}

var errNoUsers = errors.New("the file has no users")

func parse(text []byte) (*users, error) {
	u := &users{hashes: make(map[string][]byte), sum: sha256.Sum256(text)}
	number := 0
	for line := range bytes.Lines(text) {
		number++
		entry := strings.TrimSpace(string(line))
		if entry == "" || strings.HasPrefix(entry, "#") {
			continue
		}
		name, hash, _ := strings.Cut(entry, ":")
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case name == "" || err != nil || !hashForm.MatchString(hash):
			return nil, fmt.Errorf("line %d: expected a user name, a colon and a bcrypt hash, as \"htpasswd -B\" writes it", number)
		case cost > maxCost:
			return nil, fmt.Errorf("line %d: the cost is %d, with which each check would take seconds; expected %d at most", number, cost, maxCost)
		case u.hashes[name] != nil:
			return nil, fmt.Errorf("line %d: the user of this line is in an earlier line, too", number)
		}
		u.hashes[name] = []byte(hash)
		u.names = append(u.names, name)
	}
	if len(u.names) == 0 {
		return nil, errNoUsers
	}
	slices.Sort(u.names)
	return u, nil
}
