package access

import (
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxAcceptedRepositories bounds the repositories of which credentials are kept.
	maxAcceptedRepositories = 4096
	// maxAcceptedEach bounds the credentials of one repository.
	maxAcceptedEach = 4
	// acceptedLife is how long a credential is used after the upstream has accepted it. Those
	// that live longest, of ECR, live that long.
	acceptedLife = 12 * time.Hour
)

// accepted has the credentials that upstreams have accepted last, by repository. Gate.mu guards
// it.
type accepted struct {
	all *simplelru.LRU[Repository, []acceptedOne]
}

type acceptedOne struct {
	credential Credential
	at         time.Time
}

func newAccepted() *accepted {
	all, _ := simplelru.NewLRU[Repository, []acceptedOne](maxAcceptedRepositories, nil) // fails only for a size that is not positive
	return &accepted{all: all}
}

// add makes a credential the first of a repository.
func (a *accepted) add(repo Repository, c Credential, now time.Time) {
	known, _ := a.all.Get(repo)
	list := append([]acceptedOne{{c, now}}, without(known, c)...)
	a.all.Add(repo, list[:min(len(list), maxAcceptedEach)])
}

// drop removes a credential of a repository.
func (a *accepted) drop(repo Repository, c Credential) {
	if known, ok := a.all.Peek(repo); ok {
		a.all.Add(repo, without(known, c))
	}
}

// dropIf removes the credentials for which remove is true.
func (a *accepted) dropIf(remove func(Repository, Credential) bool) {
	for _, repo := range a.all.Keys() {
		known, _ := a.all.Peek(repo)
		kept := slices.DeleteFunc(slices.Clone(known), func(one acceptedOne) bool { return remove(repo, one.credential) })
		if len(kept) == 0 {
			a.all.Remove(repo)
		} else {
			a.all.Add(repo, kept)
		}
	}
}

// of returns the credentials of a repository, the latest first.
func (a *accepted) of(repo Repository, now time.Time) []Credential {
	known, _ := a.all.Get(repo)
	var list []Credential
	for _, one := range known {
		if now.Sub(one.at) < acceptedLife {
			list = append(list, one.credential)
		}
	}
	return list
}

func without(list []acceptedOne, c Credential) []acceptedOne {
	return slices.DeleteFunc(slices.Clone(list), func(one acceptedOne) bool { return one.credential == c })
}
