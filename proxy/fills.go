package proxy

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/larder-registry/larder/cache"
)

// Fill is a blob that is being fetched, with the clients that wait for it. Its lists
// are never nil.
type Fill struct {
	cache.FillInfo
	// Repositories are those in which clients ask for the blob now; at most eight.
	Repositories []string `json:"repositories"`
	// Waiting counts the clients. Clients lists the first eight of them.
	Waiting int      `json:"waiting"`
	Clients []Client `json:"clients"`
}

// Client is a client that waits for a blob.
type Client struct {
	Address string    `json:"address"` // without the port
	Agent   string    `json:"agent"`   // the first product of its User-Agent, such as containerd/2.1.4
	Since   time.Time `json:"since"`
}

const (
	// maxListed bounds the clients and repositories that are listed for one blob.
	maxListed = 8
	// maxAgent bounds Client.Agent, in bytes.
	maxAgent = 60
)

// readers are the requests that wait for or read a blob that is not cached yet. It is
// safe for concurrent use.
type readers struct{ requests sync.Map } // of *reader

// reader is one request for a blob.
type reader struct {
	repo   cache.Repository
	digest digest.Digest
	client string // its address
	agent  string // its whole User-Agent
	since  time.Time
}

// add notes a request for a blob until remove is called.
func (rs *readers) add(t target, agent string) (remove func()) {
	one := &reader{t.repo, t.digest, t.client, agent, time.Now()}
	rs.requests.Store(one, nil)
	return func() { rs.requests.Delete(one) }
}

// of returns each fill with its requests, the earliest first.
func (rs *readers) of(fills []cache.FillInfo) []Fill {
	byDigest := make(map[digest.Digest][]*reader)
	rs.requests.Range(func(key, _ any) bool {
		one := key.(*reader)
		byDigest[one.digest] = append(byDigest[one.digest], one)
		return true
	})
	all := make([]Fill, len(fills))
	for i, fill := range fills {
		waiting := byDigest[fill.Digest]
		slices.SortFunc(waiting, func(a, b *reader) int {
			return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.client, b.client))
		})
		f := Fill{FillInfo: fill, Repositories: []string{}, Waiting: len(waiting), Clients: []Client{}}
		for _, one := range waiting {
			if repo := one.repo.String(); len(f.Repositories) < maxListed && !slices.Contains(f.Repositories, repo) {
				f.Repositories = append(f.Repositories, repo)
			}
			if len(f.Clients) < maxListed {
				f.Clients = append(f.Clients, one.shown())
			}
		}
		all[i] = f
	}
	return all
}

func (one *reader) shown() Client {
	agent, _, _ := strings.Cut(one.agent, " ") // the other products are libraries
	return Client{Address: one.client, Agent: cut(agent, maxAgent), Since: one.since}
}
