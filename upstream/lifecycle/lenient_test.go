package lifecycle_test

import (
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// lastRule expires every image that no rule before it selects.
const lastRule = `{"rulePriority":9,"selection":{"tagStatus":"any","countType":"sinceImagePushed","countUnit":"days","countNumber":1},` +
	`"action":{"type":"expire"}}`

// ofEachKind are images that are long past the fourteen days of validRule, and the
// tags of which it selects.
var ofEachKind = []lifecycle.Image{
	pushed("version", 20*day, "v1"), pushed("other", 20*day, "x1"), pushed("untagged", 20*day), pushed("empty tag", 20*day, ""),
	archived(pushed("archived", 99*day, "v2"), 95*day),
}

// evaluateStored evaluates a policy as ECR stores it. It returns which images expired,
// those by a rule other than lastRule with a mark, and what was not understood.
func evaluateStored(t *testing.T, text string) (expired []string, notUnderstood lifecycle.Mistakes) {
	t.Helper()
	policy, err := lifecycle.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range policy.Expired(ofEachKind, policyNow) {
		by := " by the first"
		if e.Rule == 9 {
			by = ""
		}
		expired = append(expired, string(e.Digest)+by)
	}
	slices.Sort(expired)
	return expired, policy.NotUnderstood()
}

func TestPolicyThatECRHasAcceptedIsReadLeniently(t *testing.T) {
	usual := []string{"empty tag", "other", "untagged", "version by the first"}
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"priority 0":              {edit(`y":1`, `y":0`, lastRule), usual},
		"negative priority":       {edit(`y":1`, `y":-1`, lastRule), usual},
		"integers as 1.0":         {edit(`y":1`, `y":1.0`, strings.Replace(lastRule, `r":1}`, `r":1.0}`, 1)), usual},
		"integers as 1e0":         {edit(`y":1`, `y":1e0`, lastRule), usual},
		"null":                    {edit(`"d"`, `null`, lastRule), usual},
		"null for the other list": {edit(`"tagPatternList":["v*"]`, `"tagPatternList":["v*"],"tagPrefixList":null`, lastRule), usual},
		"the same priority":       {edit(`y":1`, `y":9`, lastRule), []string{"empty tag", "other", "untagged", "version"}},
		"any prefix": {edit(`"tagPatternList":["v*"]`, `"tagPrefixList":[""]`, lastRule),
			[]string{"empty tag by the first", "other by the first", "untagged", "version by the first"}},
		"many wildcards":       {edit(`"v*"`, `"v**********1"`, lastRule), usual},
		"any before another":   {edit(`"tagged","tagPatternList":["v*"]`, `"any"`, lastRule), []string{"empty tag by the first", "other by the first", "untagged by the first", "version by the first"}},
		"the same selection":   {edit("", "", strings.Replace(validRule, `y":1`, `y":2`, 1), lastRule), usual},
		"the unit of a count":  {edit("sinceImagePushed", "imageCountMoreThan", lastRule), []string{"empty tag", "other", "untagged"}},
		"no rules":             {`{"rules":[]}`, nil},
		"more rules than ECRs": {edit("", "", strings.Split(strings.Repeat("|"+lastRule, 60)[1:], "|")...), usual},
		"longer than ECRs":     {edit("", "", lastRule) + strings.Repeat(" ", 40_000), usual},
	} {
		t.Run(name, func(t *testing.T) {
			got, notUnderstood := evaluateStored(t, test.text)
			if diff := gocmp.Diff(test.want, got); diff != "" || len(notUnderstood) > 0 {
				t.Errorf("not understood: %v; expired (-want +got):\n%s", notUnderstood, diff)
			}
		})
	}
}

func TestRuleThatIsNotUnderstoodProtectsWhatItMightSelect(t *testing.T) {
	others, untaggedOnly := []string{"empty tag", "other", "untagged"}, []string{"untagged"}
	const sel = "rules[0].selection."
	for name, test := range map[string]struct {
		text string
		want []string // of lastRule, which comes after the rule that is not understood
		key  string
	}{
		"count type":           {edit("sinceImagePushed", "sinceImageBuilt", lastRule), others, sel + "countType"},
		"key of the rule":      {edit(`"description"`, `"enabled":false,"description"`, lastRule), others, "rules[0].enabled"},
		"key in other case":    {edit(`"description"`, `"Description"`, lastRule), others, "rules[0].Description"},
		"key of the selection": {edit(`"tagStatus"`, `"architecture":"arm64","tagStatus"`, lastRule), others, sel + "architecture"},
		"other patterns":       {edit(`"tagPatternList":["v*"]`, `"tagRegexList":["v.*"]`, lastRule), untaggedOnly, sel + "tagRegexList"},
		"list with a number":   {edit(`["v*"]`, `["v*",1]`, lastRule), untaggedOnly, sel + "tagPatternList"},
		"empty pattern":        {edit(`["v*"]`, `["v*",""]`, lastRule), untaggedOnly, sel + "tagPatternList[1]"},
		"both lists":           {edit(`"tagPatternList"`, `"tagPrefixList":["x"],"tagPatternList"`, lastRule), untaggedOnly, sel + "tagPrefixList"},
		"tag status":           {edit(`"tagged"`, `"signed"`, lastRule), nil, sel + "tagStatus"},
		"storage class":        {edit(`"tagStatus"`, `"storageClass":"cold","tagStatus"`, lastRule), others, sel + "storageClass"},
		"unit":                 {edit(`"days"`, `"hours"`, lastRule), others, sel + "countUnit"},
		"number":               {edit("14", "0", lastRule), others, sel + "countNumber"},
		"number in quotes":     {edit("14", `"14"`, lastRule), others, sel + "countNumber"},
		"half a number":        {edit("14", "1.5", lastRule), others, sel + "countNumber"},
		"huge number":          {edit("14", "1e300", lastRule), others, sel + "countNumber"},
		"action":               {edit(`"expire"`, `"quarantine"`, lastRule), others, "rules[0].action.type"},
		"key of the action":    {edit(`"expire"`, `"expire","after":3`, lastRule), others, "rules[0].action.after"},
		"no selection":         {edit(`"selection"`, `"choice"`, lastRule), nil, "rules[0].selection"},
		"no object":            {`{"rules":[7,` + lastRule + `]}`, nil, "rules[0]"},
		"no priority, last":    {`{"rules":[` + lastRule + "," + strings.Replace(validRule, "rulePriority", "order", 1) + `]}`, others, "rules[1].rulePriority"},
	} {
		t.Run(name, func(t *testing.T) {
			got, notUnderstood := evaluateStored(t, test.text)
			if diff := gocmp.Diff(test.want, got); diff != "" {
				t.Errorf("expired (-want +got):\n%s", diff)
			}
			if !slices.ContainsFunc(notUnderstood, func(m lifecycle.Mistake) bool { return m.Key == test.key }) {
				t.Errorf("%s is not among %v", test.key, notUnderstood)
			}
		})
	}
}

func TestUnknownKeyBesideTheRulesIsSaid(t *testing.T) {
	got, notUnderstood := evaluateStored(t, `{"version":2,"rules":[`+lastRule+`]}`)
	if len(got) != 4 || !gocmp.Equal(notUnderstood, lifecycle.Mistakes{{"version", "unknown key"}}) {
		t.Errorf("expired %v, not understood: %v", got, notUnderstood)
	}
}

func TestTextThatIsNoPolicyIsAnError(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "{}", `{"rules":7}`, `{"rules":null}`, `{"rules":[]}` + strings.Repeat(" ", 1<<20)} {
		if _, err := lifecycle.Parse([]byte(text)); err == nil {
			t.Errorf("%.20q is accepted", text)
		}
	}
}
