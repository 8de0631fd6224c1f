package main

import (
	"errors"
	"fmt"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	rules "github.com/larder-registry/larder/upstream/lifecycle"
)

// checkRules is config.RulesCheck: config does not know what rules may say, and
// upstream does not know of lines in files.
func checkRules(document []byte) config.Mistakes {
	_, err := rules.ParseLocal(document)
	var wrong rules.Mistakes
	errors.As(err, &wrong)
	var mistakes config.Mistakes
	for _, m := range wrong {
		mistakes = append(mistakes, config.Mistake{Key: m.Key, Problem: m.Problem})
	}
	return mistakes
}

// applyLocal applies the configuration's own rules, each to one repository at a
// time as ECR does, by what the cache knows: an image was pushed when it came,
// and pulled when it was last asked for here.
func (l *lifecycle) applyLocal() ([]cache.Verdict, error) {
	if len(l.cfg.Lifecycle) == 0 {
		return nil, nil
	}
	holdings, err := l.store.Holdings()
	if err != nil {
		return nil, err
	}
	policies := make([]rules.Policy, len(l.cfg.Lifecycle))
	for i := range policies {
		if policies[i], err = rules.ParseLocal([]byte(l.cfg.Lifecycle[i].Rules)); err != nil {
			return nil, fmt.Errorf("lifecycle[%d] of the configuration: %w", i, err) // checked when it was loaded
		}
	}
	var verdicts []cache.Verdict
	for repo, held := range holdings {
		if i, ok := l.cfg.LocalRules(repo.Upstream, repo.Name); ok {
			verdicts = append(verdicts, verdictsOf(policies[i], localImages(held), repo, sourceLocal)...)
		}
	}
	return verdicts, nil
}

func localImages(held []cache.Holding) []rules.Image {
	images := make([]rules.Image, len(held))
	for i, h := range held {
		images[i] = rules.Image{
			Digest:   h.Digest,
			Tags:     h.Tags,
			Pushed:   h.Fetched,
			Pulled:   h.Used,
			Index:    h.Index,
			Children: h.Children,
			Subject:  h.Subject,
		}
	}
	return images
}
