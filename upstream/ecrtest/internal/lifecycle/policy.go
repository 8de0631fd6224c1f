package lifecycle

import (
	"bytes"
	"cmp"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// rule is a rule of a lifecycle policy: ECR user guide, "Lifecycle policy
// parameters".
type rule struct {
	RulePriority int    `json:"rulePriority"`
	Description  string `json:"description"`
	Selection    struct {
		TagStatus      string   `json:"tagStatus"`
		TagPatternList []string `json:"tagPatternList"`
		TagPrefixList  []string `json:"tagPrefixList"`
		StorageClass   string   `json:"storageClass"`
		CountType      string   `json:"countType"`
		CountUnit      string   `json:"countUnit"`
		CountNumber    int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type               string `json:"type"`
		TargetStorageClass string `json:"targetStorageClass"`
	} `json:"action"`
}

// parse returns the rules of a policy, the one to apply first at first.
func parse(policy string) ([]rule, error) {
	var doc struct {
		Rules []rule `json:"rules"`
	}
	dec := json.NewDecoder(bytes.NewReader([]byte(policy)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, err
	}
	slices.SortFunc(doc.Rules, func(a, b rule) int { return cmp.Compare(a.RulePriority, b.RulePriority) })
	return doc.Rules, nil
}

// selects reports whether an image has the tagging and the storage class of the
// rule. If the rule has several patterns, each must match one of the image's tags.
func (r rule) selects(img Image) bool {
	sel := r.Selection
	if (sel.StorageClass == "archive") != img.InArchive {
		return false
	}
	switch sel.TagStatus {
	case "any":
		return true
	case "untagged":
		return len(img.Tags) == 0
	}
	patterns := slices.Clone(sel.TagPatternList)
	for _, prefix := range sel.TagPrefixList {
		patterns = append(patterns, prefix+"*")
	}
	for _, pattern := range patterns {
		if !slices.ContainsFunc(img.Tags, func(tag string) bool { return MatchTag(pattern, tag) }) {
			return false
		}
	}
	return len(patterns) > 0
}

// MatchTag reports whether a tag matches a pattern, in which * stands for any
// characters, or for none.
func MatchTag(pattern, tag string) bool {
	expr := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`)
	return regexp.MustCompile(`^` + expr + `$`).MatchString(tag)
}
