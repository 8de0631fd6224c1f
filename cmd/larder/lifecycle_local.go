package main

import (
	"errors"
	"fmt"

	"github.com/larder-registry/larder/cache"
	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/upstream"
)

// checkRules is config.RulesCheck: config does not know what rules may say, and
// upstream does not know of lines in files.
func checkRules(document []byte) config.Mistakes {
	_, err := upstream.ParseLocalPolicy(document)
	var wrong upstream.PolicyMistakes
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
	rules := make([]upstream.LifecyclePolicy, len(l.cfg.Lifecycle))
	for i := range rules {
		if rules[i], err = upstream.ParseLocalPolicy([]byte(l.cfg.Lifecycle[i].Rules)); err != nil {
			return nil, fmt.Errorf("lifecycle[%d] of the configuration: %w", i, err) // checked when it was loaded
		}
	}
	var verdicts []cache.Verdict
	for repo, held := range holdings {
		if i, ok := l.cfg.LocalRules(repo.Upstream, repo.Name); ok {
			verdicts = append(verdicts, verdictsOf(rules[i], localImages(held), repo, sourceLocal)...)
		}
	}
	return verdicts, nil
}

func localImages(held []cache.Holding) []upstream.Image {
	images := make([]upstream.Image, len(held))
	for i, h := range held {
		images[i] = upstream.Image{
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
