package policy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLastDecisionStandsOfflineAndAfterARestartUntilItsTimeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy.json")
		c := new(condition)
		c.set(image("a", oci), Answer{Holds: true, Until: time.Now().Add(10 * time.Minute)}, nil)
		c.set(image("refused", oci), Answer{Until: time.Now().Add(10 * time.Minute)}, nil)
		r := rule(host + "/prod/*")
		r.Signed = c
		p := newPolicy(t, Options{File: file}, r)
		decide(t, p, image("a", oci), shelf{})
		decide(t, p, image("refused", oci), shelf{})
		p.save()
		c.set(image("a", oci), Answer{}, errors.New("offline"))

		p = newPolicy(t, Options{File: file}, r)
		pass(30 * time.Minute)
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Allowed || d.Stands == "" {
			t.Errorf("while it stands: %s: %s", d.Result, d)
		}
		if d := decide(t, p, image("refused", oci), shelf{}); d.Result != Refused {
			t.Errorf("a refusal that cannot be made again is %s", d)
		}
		if d := decide(t, p, image("never decided", oci), shelf{}); d.Result != Unknown {
			t.Errorf("what was never decided is %s", d)
		}
		pass(31 * time.Minute)
		if d := decide(t, p, image("a", oci), shelf{}); d.Result != Unknown {
			t.Errorf("after policy.offline: %s", d)
		}
	})
}

func TestDamagedAndLaterFilesAreIgnored(t *testing.T) {
	for _, content := range []string{"", "{", `{"version":2,"decisions":[{"upstream":"a"}]}`, `{"version":1,"decisions":[{"digest":"x"}]}`} {
		file := filepath.Join(t.TempDir(), "policy.json")
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if p := newPolicy(t, Options{File: file}); p.known.Len() != 0 {
			t.Errorf("%q has %d decisions", content, p.known.Len())
		}
	}
}

func TestRunKeepsTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "policy.json")
		r := rule(host + "/prod/*")
		r.Age = time.Hour
		p := newPolicy(t, Options{File: file}, r)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		decide(t, p, image("a", oci), shelf{})
		pass(saveEvery + time.Second)
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
		stop()
		running.Wait()
		if all := newPolicy(t, Options{File: file}, r).Decisions(); len(all) != 1 || all[0].Result != Refused || all[0].Rule != r.Name() {
			t.Errorf("the next process knows %+v", all)
		}
	})
}
