package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/larder-registry/larder/config"
	"github.com/larder-registry/larder/proxy"
	"github.com/larder-registry/larder/proxy/policy"
	"github.com/larder-registry/larder/proxy/policy/findings"
	"github.com/larder-registry/larder/proxy/policy/signed"
	"github.com/larder-registry/larder/upstream"
)

// policySources are what the conditions of rules ask.
type policySources struct {
	content   signed.Content
	services  *http.Client // of certificates
	isOffline func(host string) bool
	registry  func(host string) (*upstream.Registry, error)
}

// CheckPolicy returns every mistake in the files that the rules of a configuration name.
func CheckPolicy(cfg *config.Config) error {
	_, err := policyRules(cfg, policySources{})
	return err
}

// policyRules are the rules that the configuration sets. The error has every mistake in the files that
// they name.
func policyRules(cfg *config.Config, from policySources) ([]*policy.Rule, error) {
	all := make([]*policy.Rule, 0, len(cfg.Policy))
	var errs []error
	for i, entry := range cfg.Policy {
		rule, err := policyRule(entry, from)
		if err != nil {
			errs = append(errs, fmt.Errorf("policy[%d]: %w", i, err))
			continue
		}
		all = append(all, rule)
	}
	return all, errors.Join(errs...)
}

func policyRule(entry config.Policy, from policySources) (*policy.Rule, error) {
	r := &policy.Rule{Match: entry.Match, Mode: policy.Mode(entry.Mode), Offline: entry.Offline, Age: entry.Age}
	basis := sha256.New()
	fmt.Fprintf(basis, "age %v\n", entry.Age)
	if s := entry.Signed; s != nil {
		opts := signed.Options{Content: from.content, HTTP: from.services, Signer: revocations{from.registry}}
		if s.Notation != nil {
			opts.Notation = &signed.Notation{TrustPolicy: s.Notation.TrustPolicy, TrustStore: s.Notation.TrustStore}
		}
		if s.Cosign != nil {
			opts.Cosign = &signed.Cosign{Keys: s.Cosign.Keys, TrustedRoot: s.Cosign.TrustedRoot}
			for _, one := range s.Cosign.Identities {
				opts.Cosign.Identities = append(opts.Cosign.Identities, signed.Identity{Issuer: one.Issuer, Subject: one.Subject})
			}
		}
		condition, err := signed.New(opts)
		if err != nil {
			return nil, fmt.Errorf("signed: %w", err)
		}
		fmt.Fprintf(basis, "signed %s\n", condition.Basis())
		r.Signed = confirmed{condition, from.isOffline}
	}
	if f := entry.Findings; f != nil {
		worst, err := findings.ParseSeverity(f.Worst)
		if err != nil {
			return nil, fmt.Errorf("findings: %w", err)
		}
		fmt.Fprintf(basis, "findings %+v\n", *f)
		r.Findings = findings.New(findings.Options{
			Scans: scans{from.registry}, Worst: worst, OnlyFixable: f.OnlyFixable, AllowUnscanned: f.AllowsUnscanned(),
		})
	}
	r.Basis = hex.EncodeToString(basis.Sum(nil))
	return r, nil
}

// confirmed is a condition about lists of an upstream. A stale list may lack the entry that the condition
// looks for. So while the upstream cannot be asked, a condition that does not hold is not decided.
type confirmed struct {
	policy.Condition
	isOffline func(host string) bool
}

// Evaluate is for [policy.Condition].
func (c confirmed) Evaluate(ctx context.Context, image policy.Image) (policy.Answer, error) {
	ctx, isStale := proxy.NoteStale(ctx)
	answer, err := c.Condition.Evaluate(ctx, image)
	if err == nil && !answer.Holds && (isStale() || c.isOffline(image.Host)) {
		return policy.Answer{}, fmt.Errorf("%s cannot be asked now, and may have more than what is known here: %s", image.Host, answer.Reason)
	}
	return answer, err
}
