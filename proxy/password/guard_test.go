package password

// White-box: the tests count what is remembered, and look at the file when they want.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"golang.org/x/crypto/bcrypt"

	"github.com/larder-registry/larder/proxy/livefile"
)

// rig is a guard of a file of the test's.
type rig struct {
	*Guard
	file   string
	t      *testing.T
	log    *bytes.Buffer
	reader *sdk.ManualReader
}

// line is that of a user in a file.
func line(t *testing.T, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

func newRig(t *testing.T, lines ...string) *rig {
	t.Helper()
	r := &rig{t: t, log: new(bytes.Buffer), reader: sdk.NewManualReader()}
	r.file = filepath.Join(t.TempDir(), "users")
	r.write(lines...)
	var err error
	r.Guard, err = Open(r.file, sdk.NewMeterProvider(sdk.WithReader(r.reader)), slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// write makes or replaces the file.
func (r *rig) write(lines ...string) {
	r.t.Helper()
	if err := os.WriteFile(r.file, []byte(strings.Join(lines, "")), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// check is the error for a user at an address.
func (r *rig) check(address, user, password string) error {
	req := httptest.NewRequest(http.MethodGet, "/v2/", http.NoBody)
	req.RemoteAddr = address
	req.SetBasicAuth(user, password)
	name, err := r.Check(req)
	if err == nil && name != user || err != nil && name != "" {
		r.t.Errorf("the request of %q, with %v, is of %q", user, err, name)
	}
	return err
}

// counted is how many checks had a result.
func (r *rig) counted(result string) (n int64) {
	r.t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.reader.Collect(context.Background(), &all); err != nil {
		r.t.Fatal(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			sum, ok := m.Data.(metricdata.Sum[int64])
			for _, point := range sum.DataPoints {
				if value, _ := point.Attributes.Value("result"); ok && value.AsString() == result {
					n += point.Value
				}
			}
		}
	}
	return n
}

func TestOnlyRightPairsMayEnter(t *testing.T) {
	r := newRig(t, "# people\n\n", line(t, "alice", "wonder:land"), line(t, "bob", ""))
	for _, test := range []struct {
		user, password string
		want           error
	}{
		{"alice", "wonder:land", nil},
		{"bob", "", nil},
		{"alice", "wonder", ErrUnauthorized},
		{"alice", "", ErrUnauthorized},
		{"Alice", "wonder:land", ErrUnauthorized},
		{"bob", "wonder:land", ErrUnauthorized},
		{"mallory", "wonder:land", ErrUnauthorized}, // whose line may be compared with it
		{"mallory", "", ErrUnauthorized},
		{"", "", ErrUnauthorized},
	} {
		if err := r.check("10.0.0.7:1", test.user, test.password); !errors.Is(err, test.want) {
			t.Errorf("%s with %q: %v, want %v", test.user, test.password, err, test.want)
		}
	}
	req := httptest.NewRequest(http.MethodGet, "/v2/", http.NoBody)
	for header, want := range map[string]error{"": ErrUnauthorized, "Bearer abc": ErrUnauthorized, "Basic %%%": ErrUnauthorized, "Basic YWxpY2U=": ErrUnauthorized} {
		req.Header.Set("Authorization", header)
		if _, err := r.Check(req); !errors.Is(err, want) {
			t.Errorf("%q: %v", header, err)
		}
	}
	req.Header.Del("Authorization")
	if _, err := r.Check(req); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("no header: %v", err)
	}
	req.SetBasicAuth("alice", "wonder:land")
	req.Header.Add("Authorization", req.Header.Get("Authorization"))
	if _, err := r.Check(req); !errors.Is(err, ErrMalformed) {
		t.Errorf("two headers: %v", err)
	}
}

func TestRightPairIsComparedOnceWhoeverAsks(t *testing.T) {
	r := newRig(t, line(t, "alice", "wonderland"))
	var asking sync.WaitGroup
	for range 64 {
		asking.Go(func() {
			if err := r.check("10.0.0.7:1", "alice", "wonderland"); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if n := r.counted("right"); n < 1 || n > 2 { // one may come when the first has just ended
		t.Errorf("bcrypt ran %d times for 64 requests at once", n)
	}
	before := r.counted("right")
	for i := range 100 {
		if err := r.check(fmt.Sprintf("10.0.1.%d:1", i), "alice", "wonderland"); err != nil {
			t.Error(err)
		}
	}
	if n := r.counted("right"); n != before {
		t.Errorf("bcrypt ran %d times more for 100 requests after the first", n-before)
	}
}

// A name that does not exist costs one comparison, as a name does that exists.
func TestUnknownUsersAreComparedToo(t *testing.T) {
	r := newRig(t, line(t, "alice", "wonderland"))
	_ = r.check("10.0.0.7:1", "alice", "wrong") // what it returns is tested elsewhere
	known := r.counted("wrong")
	_ = r.check("10.0.0.8:1", "mallory", "wrong")
	if unknown := r.counted("wrong") - known; known != 1 || unknown != 1 {
		t.Errorf("bcrypt ran %d times for a known user, %d times for an unknown one", known, unknown)
	}
	first, _ := r.hashOf("mallory")
	for range 10 {
		if again, known := r.hashOf("mallory"); known || !bytes.Equal(first, again) {
			t.Fatal("the line of an unknown user is not always the same")
		}
	}
}

func TestFloodOfWrongPasswordsIsBoundedAndHurtsNobody(t *testing.T) {
	alice, bob := line(t, "alice", "wonderland"), line(t, "bob", "builder")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		const flooding = "10.0.0.7:1"
		if err := r.check(flooding, "alice", "wonderland"); err != nil {
			t.Fatal(err)
		}
		for i := range 200 * 60 {
			if err := r.check(flooding, fmt.Sprint("user", i%7), fmt.Sprint("guess", i)); !errors.Is(err, ErrUnauthorized) {
				t.Fatal(err)
			}
			if i%100 == 0 {
				if err := r.check(flooding, "alice", "wonderland"); err != nil { // which is remembered
					t.Errorf("a right client of the same address: %v", err)
				}
			}
			<-time.After(time.Second / 200)
		}
		if n, most := r.counted("wrong"), int64(burst+time.Minute/refill); n > most || n < burst {
			t.Errorf("bcrypt ran %d times for wrong passwords, want at most %d", n, most)
		}
		if err := r.check("10.0.0.8:1", "bob", "builder"); err != nil {
			t.Errorf("a new client of another address: %v", err)
		}
		if err := r.check(flooding, "bob", "wrong"); !errors.Is(err, errLimited) {
			t.Errorf("the flooding address: %v", err)
		}
		<-time.After(refill)
		if err := r.check(flooding, "bob", "builder"); err != nil {
			t.Errorf("a new client of the flooding address, when that has stopped: %v", err)
		}
	})
}

func TestPairsTakeBoundedMemory(t *testing.T) {
	r := newRig(t, line(t, "alice", "wonderland"))
	for i := range maxRight + 100 {
		r.right.Add(r.mac(fmt.Sprint(i)), struct{}{})
	}
	if n := r.right.Len(); n != maxRight {
		t.Errorf("%d pairs are kept, want %d", n, maxRight)
	}
}

func TestChangedFileCountsAtOnceAndABrokenOneDoesNot(t *testing.T) {
	alice, bob := line(t, "alice", "wonderland"), line(t, "bob", "builder")
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, alice, bob)
		ctx, stop := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { r.Run(ctx) })
		enter := func(user, password string) bool { return r.check("10.0.0.7:1", user, password) == nil }
		if !enter("alice", "wonderland") || !enter("bob", "builder") {
			t.Fatal("a right pair is refused")
		}
		r.write(line(t, "alice", "looking-glass"), bob)
		<-time.After(livefile.Every + time.Second)
		if enter("alice", "wonderland") {
			t.Error("a password that was replaced is remembered")
		}
		if !enter("alice", "looking-glass") {
			t.Error("the new password is refused")
		}
		before := r.counted("right")
		if !enter("bob", "builder") || r.counted("right") != before {
			t.Error("a user whose line has not changed is compared again")
		}
		r.write("alice:hunter2\n")
		r.Use(r.file)
		<-time.After(time.Minute)
		if !enter("alice", "looking-glass") {
			t.Error("a broken file locks everybody out")
		}
		stop()
		running.Wait()
		if text := r.log.String(); strings.Count(text, "level=ERROR") > 2 || !strings.Contains(text, "line 1") || strings.Contains(text, "hunter2") {
			t.Errorf("want an error that names the line, and nothing of it:\n%s", text)
		}
	})
}

func TestMistakesInTheFileNameTheLineAndShowNothingOfIt(t *testing.T) {
	good := line(t, "alice", "wonderland")
	hash := strings.TrimSpace(strings.TrimPrefix(good, "alice:"))
	for name, test := range map[string]struct{ text, want string }{
		"MD5":          {good + "bob:$apr1$hunter2$0123456789012345678901\n", "line 2"},
		"SHA-1":        {"\n# people\nbob:{SHA}hunter2\n", "line 3"},
		"plain":        {"bob:hunter2", "line 1"},
		"no colon":     {"hunter2\n", "line 1"},
		"no name":      {":" + hash + "\n", "line 1"},
		"cut":          {good + "bob:" + hash[:40] + "\n", "line 2"},
		"odd letters":  {"bob:" + hash[:59] + "!\n", "line 1"},
		"costly":       {"bob:$2a$31" + hash[6:] + "\n", "line 1: the cost is 31"},
		"twice":        {good + good, "line 2: the user of this line"},
		"none":         {"# nobody\n", "no users"},
		"empty":        {"", "no users"},
		"more than it": {"bob:" + hash + ":hunter2\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "users")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := readFile(path)
			if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			for _, secret := range []string{"hunter2", "bob", hash[10:40]} {
				if strings.Contains(strings.ReplaceAll(err.Error(), path, ""), secret) {
					t.Errorf("%v shows %q", err, secret)
				}
			}
		})
	}
	if u, err := parse([]byte(strings.ReplaceAll(good, "$2a$", "$2y$") + "\r\n")); err != nil || len(u.names) != 1 {
		t.Errorf("what htpasswd writes: %v", err) // it writes 2y
	}
}

func FuzzFileOfUsers(f *testing.F) {
	f.Add([]byte("alice:$2y$05$abcdefghijklmnopqrstuuKkNqgV6eGKkCQzZyTZ5Y5Zq0l5m5m5m\n# x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		u, err := parse(text)
		if err == nil && (len(u.names) == 0 || len(u.names) != len(u.hashes)) {
			t.Errorf("%q gives %d names and %d hashes", text, len(u.names), len(u.hashes))
		}
	})
}
