package ecrapi

import "github.com/larder-registry/larder/upstream/ecrtest/internal/registry"

// listPullTimeUpdateExclusions sends a page of the list of the registry of the caller's
// account.
func (a *API) listPullTimeUpdateExclusions(r request) {
	var in struct {
		MaxResults *int   `json:"maxResults"`
		NextToken  string `json:"nextToken"`
	}
	if !r.decode(&in) || !r.permit("ecr:ListPullTimeUpdateExclusions", "*") {
		return
	}
	principals := []string{} // an array, even if empty
	if own := a.find(r.caller.Account); own != nil {
		principals = append(principals, own.PullTimeExclusions()...)
	}
	part, next, ok := page(r, principals, in.MaxResults, in.NextToken, func(arn string) string { return arn })
	if ok {
		r.reply(struct {
			Principals []string `json:"pullTimeUpdateExclusions"`
			NextToken  string   `json:"nextToken,omitempty"`
		}{part, next})
	}
}

// describeRegistry sends the replication rules of the registry of the caller's account.
func (a *API) describeRegistry(r request) {
	var in struct{}
	if !r.decode(&in) || !r.permit("ecr:DescribeRegistry", "*") {
		return
	}
	type configuration struct {
		Rules []replicationRule `json:"rules"`
	}
	rules := []replicationRule{} // an array, even if empty
	if own := a.find(r.caller.Account); own != nil {
		for _, rule := range own.Replication() {
			rules = append(rules, newReplicationRule(rule))
		}
	}
	r.reply(struct {
		RegistryID    string        `json:"registryId"`
		Configuration configuration `json:"replicationConfiguration"`
	}{r.caller.Account, configuration{rules}})
}

// replicationRule is a rule in the answer of DescribeRegistry.
type replicationRule struct {
	Destinations []destination `json:"destinations"`
	Filters      []filter      `json:"repositoryFilters,omitempty"`
}

type destination struct {
	Region     string `json:"region"`
	RegistryID string `json:"registryId"`
}

type filter struct {
	Filter     string `json:"filter"`
	FilterType string `json:"filterType"`
}

func newReplicationRule(rule registry.ReplicationRule) (r replicationRule) {
	for _, to := range rule.Destinations {
		r.Destinations = append(r.Destinations, destination{to.Region, to.Account})
	}
	for _, prefix := range rule.Prefixes {
		r.Filters = append(r.Filters, filter{prefix, "PREFIX_MATCH"})
	}
	return r
}
