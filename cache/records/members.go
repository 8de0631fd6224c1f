package records

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"
)

// Member returns how a repository contains a blob.
func (ix *Index) Member(repo Repository, d digest.Digest) (Member, error) {
	var rec Member
	err := ix.db.get(memberKey(repo, d), &rec)
	return rec, err
}

// PutMember records that a repository contains a blob.
func (ix *Index) PutMember(repo Repository, d digest.Digest, rec Member) error {
	return ix.db.put(entry{memberKey(repo, d), rec})
}

// PutMembers records how repositories contain a blob, in one batch.
func (ix *Index) PutMembers(d digest.Digest, of map[Repository]Member) error {
	entries := make([]entry, 0, len(of))
	for repo, rec := range of {
		entries = append(entries, entry{memberKey(repo, d), rec})
	}
	return ix.db.put(entries...)
}

// EachMember calls visit for every membership of a digest for which of returns
// true, until visit returns an error.
func (ix *Index) EachMember(of func(digest.Digest) bool, visit func(RepoDigest, Member) error) error {
	return ix.db.each(memberPrefix, func(name, raw []byte) error {
		repo, d, ok := parseMember(string(name))
		if !ok || !of(d) {
			return nil
		}
		var rec Member
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			return visit(RepoDigest{repo, d}, rec)
		}
		return nil
	})
}

// EachOf calls visit for every membership of a digest: in the repositories of an upstream, or
// in all if that is empty.
func (ix *Index) EachOf(d digest.Digest, upstream string, visit func(Repository, Member)) error {
	within := ""
	if upstream != "" {
		within = upstream + "/"
	}
	return ix.db.each(membersPrefix(d)+within, func(name, raw []byte) error {
		var rec Member
		if readable := json.Unmarshal(raw, &rec) == nil; readable {
			visit(parseRepository(within+string(name)), rec)
		}
		return nil
	})
}

// Repositories returns the repositories that contain a blob, in the order of
// their names, and no more than limit unless limit is 0.
func (ix *Index) Repositories(d digest.Digest, limit int) ([]Repository, error) {
	var repos []Repository
	err := ix.db.each(membersPrefix(d), func(name, _ []byte) error {
		repos = append(repos, parseRepository(string(name)))
		if len(repos) == limit {
			return errEnough
		}
		return nil
	})
	return repos, err
}
