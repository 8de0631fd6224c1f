package doctor

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/larder-registry/larder/cmd/internal/daemon/share"
	"github.com/larder-registry/larder/config"
)

func TestDoctorTellsWhatIsWrongWithPeers(t *testing.T) {
	fine := share.Greeting{Address: "10.0.0.2:5002", Member: true, Version: "v1.1.0"}
	with := func(p share.Problem) share.Greeting {
		return share.Greeting{Address: "10.0.0.3:5002", Problem: p, Ahead: 61}
	}
	self := share.Check{Self: "10.0.0.1:5002", Zone: "a", Version: "v1.1.0", Known: 2, OfZone: 1}
	greeted := func(all ...share.Greeting) share.Check {
		c := self
		c.Greeted = all
		return c
	}
	unresolved := greeted(fine)
	unresolved.Unresolved = []string{"dns:peers.test:5003: no such host"}
	older := greeted(fine)
	older.Version = "v1.2.0"
	for name, test := range map[string]struct {
		check  share.Check
		err    error
		status Status
		detail string
		advice string
	}{
		"all is well":        {greeted(fine), nil, OK, "1 of 1 nodes that were greeted answer\nthis one is 10.0.0.1:5002, in the zone a, and knows 2 others, 1 of them in its zone", ""},
		"other versions":     {older, nil, OK, "versions differ", ""},
		"another key":        {greeted(with(share.Stranger)), nil, Failed, "10.0.0.3:5002 have another key", "sha256sum"},
		"one is dead":        {greeted(fine, with(share.Unreachable)), nil, Warning, "10.0.0.3:5002 cannot be connected to", "over TCP and UDP"},
		"all are dead":       {greeted(with(share.Unreachable)), nil, Failed, "0 of 1", "over TCP and UDP"},
		"another release":    {greeted(with(share.Foreign)), nil, Warning, "protocol", "Upgrade"},
		"no answer":          {greeted(with(share.Silent)), nil, Warning, "do not answer", "logs"},
		"no gossip":          {greeted(with(share.Unknown)), nil, Warning, "gossip does not tell", "peers.listen"},
		"not known there":    {greeted(with(share.UnknownTo)), nil, Warning, "do not know this node", "peers.advertise"},
		"other rights":       {greeted(with(share.Rights)), nil, Warning, "other images", "another key"},
		"another time":       {greeted(with(share.Clock)), nil, Warning, "10.0.0.3:5002 (+61 s) have another time", "NTP"},
		"a name without any": {unresolved, nil, Warning, "peers.join: dns:peers.test:5003: no such host", "name server"},
		"alone":              {greeted(), nil, Warning, "0 of 0", "alone"},
		"no key":             {share.Check{}, fs.ErrPermission, Failed, "permission denied", "larder peers key"},
	} {
		e := newExamination(t.Context(), time.Minute, nil)
		cfg := &config.Config{Peers: config.Peers{KeyFile: "/etc/larder/peers.key"}}
		checkPeers(e, cfg, func(context.Context, *config.Config) (share.Check, error) { return test.check, test.err })
		if len(e.steps) != 1 {
			t.Fatalf("%s: the steps are %+v", name, e.steps)
		}
		s := e.steps[0]
		if s.Name != "peers" || s.Status != test.status || !strings.Contains(s.Detail, test.detail) || !strings.Contains(s.Advice, test.advice) || (s.Status == OK) != (s.Advice == "") {
			t.Errorf("%s: %+v, want %s, %q and %q", name, s, test.status, test.detail, test.advice)
		}
	}
}

func TestDoctorAsksNoPeersWithoutAKey(t *testing.T) {
	e := newExamination(t.Context(), time.Minute, nil)
	checkPeers(e, &config.Config{}, func(context.Context, *config.Config) (share.Check, error) {
		return share.Check{}, errors.New("it was asked")
	})
	if len(e.steps) > 0 {
		t.Errorf("the steps are %+v", e.steps)
	}
}
