package access

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"time"
)

const (
	// TokenLife is the life of a token. A pull of a large image takes longer; the client then
	// asks for another one.
	TokenLife = 10 * time.Minute
	// maxTokens bounds the tokens that are kept. Each stands for a client that pulls.
	maxTokens = 8192
)

// Repository is a repository of one upstream.
type Repository struct{ Upstream, Name string }

// String returns <upstream>/<name>.
func (r Repository) String() string { return r.Upstream + "/" + r.Name }

// Grant is what a token stands for.
type Grant struct {
	// Credential is that of the client.
	Credential Credential
	// Repositories are those for which the client asked. There may be none.
	Repositories []Repository
	expires      time.Time
}

// Covers reports whether the client asked for a repository.
func (g Grant) Covers(repo Repository) bool { return slices.Contains(g.Repositories, repo) }

// tokenID is the hash of a token. Tokens themselves are not kept.
type tokenID [sha256.Size]byte

// NewToken returns a token for a grant. It is random, and valid for TokenLife in this process.
func (g *Gate) NewToken(grant Grant) string {
	token := rand.Text()
	grant.expires = time.Now().Add(TokenLife)
	g.tokens.Add(sha256.Sum256([]byte(token)), grant)
	return token
}

// Grant returns what a token stands for, and false if it is not known or has expired.
func (g *Gate) Grant(token string) (Grant, bool) {
	id := tokenID(sha256.Sum256([]byte(token)))
	grant, ok := g.tokens.Get(id)
	if ok && !time.Now().Before(grant.expires) {
		g.tokens.Remove(id)
		return Grant{}, false
	}
	return grant, ok
}
