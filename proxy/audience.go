package proxy

import (
	"cmp"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// FillStatus is a blob on its way, and who waits for it.
type FillStatus struct {
	cache.FillInfo
	// Repositories are those in which it is asked for at the moment.
	Repositories []string `json:"repositories"`
	// Waiting is how many clients are being sent it, and Clients are the first of
	// them to come.
	Waiting int      `json:"waiting"`
	Clients []Client `json:"clients"`
}

// Client is somebody who waits for a blob.
type Client struct {
	Address string    `json:"address"` // without the port
	Agent   string    `json:"agent"`   // how it calls itself, such as containerd/2.1.4
	Since   time.Time `json:"since"`
}

const (
	// maxListed bounds the clients that are named for one blob.
	maxListed = 8
	// maxAgent bounds what a client may call itself, in bytes.
	maxAgent = 60
)

// audience is who is being sent blobs. It is safe for concurrent use.
type audience struct{ requests sync.Map } // of *attendance

// attendance is one request for a blob.
type attendance struct {
	repo    cache.Repository
	digest  digest.Digest
	address string
	agent   string
	since   time.Time
}

// join notes a request until leave is called.
func (a *audience) join(r *http.Request, t target) (leave func()) {
	one := &attendance{t.repo, t.digest, r.RemoteAddr, r.UserAgent(), time.Now()}
	a.requests.Store(one, nil)
	return func() { a.requests.Delete(one) }
}

// of returns the requests for these fills' blobs, the earliest first.
func (a *audience) of(fills []cache.FillInfo) []FillStatus {
	waiting := make(map[digest.Digest][]*attendance)
	a.requests.Range(func(key, _ any) bool {
		one := key.(*attendance)
		waiting[one.digest] = append(waiting[one.digest], one)
		return true
	})
	all := make([]FillStatus, len(fills))
	for i, fill := range fills {
		here := waiting[fill.Digest]
		slices.SortFunc(here, func(a, b *attendance) int {
			return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.address, b.address))
		})
		st := FillStatus{FillInfo: fill, Repositories: []string{}, Waiting: len(here), Clients: []Client{}}
		for _, one := range here {
			if repo := one.repo.String(); len(st.Repositories) < maxListed && !slices.Contains(st.Repositories, repo) {
				st.Repositories = append(st.Repositories, repo)
			}
			if len(st.Clients) < maxListed {
				st.Clients = append(st.Clients, describeClient(one))
			}
		}
		all[i] = st
	}
	return all
}

func describeClient(one *attendance) Client {
	address, _, err := net.SplitHostPort(one.address)
	if err != nil {
		address = one.address
	}
	agent, _, _ := strings.Cut(one.agent, " ") // the rest are its libraries
	return Client{Address: address, Agent: agent[:min(len(agent), maxAgent)], Since: one.since}
}

// Fills returns the blobs on their way and who waits for them, the oldest first.
// It returns at once, and may be called every second.
func (p *Proxy) Fills() []FillStatus { return p.audience.of(p.store.Fills()) }
