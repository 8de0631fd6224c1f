package lifecycle_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/larder-registry/larder/upstream/lifecycle"
)

// validRule is the rule into which the tests below put mistakes.
const validRule = `{"rulePriority":1,"description":"d","selection":{"tagStatus":"tagged","tagPatternList":["v*"],` +
	`"countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}`

// secondRule is valid together with validRule.
const secondRule = `{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},` +
	`"action":{"type":"expire"}}`

// edit returns a policy of validRule, in which it replaces one text, and of more
// rules.
func edit(from, to string, more ...string) string {
	if !strings.Contains(validRule, from) {
		panic(from + " is not in the rule")
	}
	rules := append([]string{strings.Replace(validRule, from, to, 1)}, more...)
	return `{"rules":[` + strings.Join(rules, ",") + `]}`
}

var validPolicies = map[string]string{
	"as it is":              edit("", ""),
	"two rules":             edit("", "", secondRule),
	"prefixes":              edit("tagPatternList", "tagPrefixList"),
	"four wildcards":        edit(`"v*"`, `"*test*1*2*3"`),
	"standard class":        edit(`"tagStatus"`, `"storageClass":"standard","tagStatus"`),
	"empty list beside":     edit(`"tagStatus"`, `"tagPrefixList":[],"tagStatus"`),
	"transition":            edit(`"expire"`, `"transition","targetStorageClass":"archive"`),
	"pulled and transition": edit(`sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"`, `sinceImagePulled","countUnit":"days","countNumber":14},"action":{"type":"transition","targetStorageClass":"archive"`),
	"archive":               edit(`"countType":"sinceImagePushed"`, `"storageClass":"archive","countType":"sinceImageTransitioned"`),
	"any beside archived": edit(`"tagged","tagPatternList":["v*"]`, `"any"`,
		`{"rulePriority":2,"selection":{"tagStatus":"any","storageClass":"archive","countType":"sinceImageTransitioned",`+
			`"countUnit":"days","countNumber":90},"action":{"type":"expire"}}`),
}

func TestValidPoliciesParse(t *testing.T) {
	for name, text := range validPolicies {
		if policy, err := lifecycle.Parse([]byte(text)); err != nil || len(policy.NotUnderstood()) > 0 {
			t.Errorf("%s: %v, not understood: %v", name, err, policy.NotUnderstood())
		}
	}
}

func TestLocalRulesCanExpireByPull(t *testing.T) {
	text := []byte(edit("sinceImagePushed", "sinceImagePulled"))
	if _, err := lifecycle.ParseLocal(text); err != nil {
		t.Error(err)
	}
	want := lifecycle.Mistakes{{"rules[0].action.type", "at ECR a rule by sinceImagePulled can only move images to the archive"}}
	if policy, err := lifecycle.Parse(text); err != nil || !gocmp.Equal(policy.NotUnderstood(), want) {
		t.Errorf("at ECR: %v, %v", policy.NotUnderstood(), err)
	}
}

func TestMistakesNameTheirKey(t *testing.T) {
	const sel = "rules[0].selection."
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"no JSON":            {`{"rules":`, []string{"unexpected end of JSON input"}},
		"more JSON":          {edit("", "") + "{}", []string{"invalid character '{' after top-level value"}},
		"no object":          {`[]`, []string{"document: not an object"}},
		"no rules":           {`{}`, []string{"rules: missing"}},
		"rules of null":      {`{"rules":null}`, []string{"rules: not a list"}},
		"rules no list":      {`{"rules":{}}`, []string{"rules: not a list"}},
		"empty rules":        {`{"rules":[]}`, []string{"rules: 0 rules; a policy has 1 to 50"}},
		"too many rules":     {`{"rules":[` + strings.Repeat("0,", 50) + `0]}`, []string{"rules: 51 rules; a policy has 1 to 50"}},
		"too long":           {edit("", "") + strings.Repeat(" ", 30_720), []string{"30921 characters, more than the 30720 that ECR accepts"}},
		"unknown key":        {`{"Rules":[],"rules":[` + validRule + `]}`, []string{"Rules: unknown key"}},
		"rule no object":     {`{"rules":[1]}`, []string{"rules[0]: not an object"}},
		"empty rule":         {`{"rules":[{}]}`, []string{"rules[0].rulePriority: missing", "rules[0].selection: missing", "rules[0].action: missing"}},
		"priority a string":  {edit(`y":1`, `y":"1"`), []string{"rules[0].rulePriority: not an integer"}},
		"priority a half":    {edit(`y":1`, `y":1.5`), []string{"rules[0].rulePriority: not an integer"}},
		"priority too large": {edit(`y":1`, `y":99999999999999999999`), []string{"rules[0].rulePriority: not an integer"}},
		"priority 0":         {edit(`y":1`, `y":0`), []string{"rules[0].rulePriority: 0 is not positive"}},
		"priority twice": {edit("", "", strings.Replace(secondRule, `y":2`, `y":1`, 1)),
			[]string{"rules[1].rulePriority: 1 is also the priority of rules[0]"}},
		"key twice":           {edit(`"description":"d"`, `"rulePriority":2`), []string{"rules[0].rulePriority: given twice"}},
		"key in other case":   {edit(`"description"`, `"Description"`), []string{"rules[0].Description: unknown key"}},
		"null":                {edit(`"d"`, `null`), []string{"rules[0].description: not a string"}},
		"selection of null":   {edit(`"selection":{`, `"selection":null,"x":{`), []string{"rules[0].selection: not an object", "rules[0].x: unknown key"}},
		"description":         {edit(`"d"`, `{}`), []string{"rules[0].description: not a string"}},
		"selection":           {edit(`"selection":{`, `"selection":1,"x":{`), []string{"rules[0].x: unknown key", "rules[0].selection: not an object"}},
		"empty selection":     {edit(`"selection":{`, `"selection":{},"x":{`), []string{"rules[0].x: unknown key", sel + "tagStatus: missing", sel + "countType: missing", sel + "countNumber: missing"}},
		"tag status":          {edit(`"tagged"`, `"TAGGED"`), []string{sel + `tagStatus: "TAGGED" is not one of ["tagged" "untagged" "any"]`}},
		"untagged with tags":  {edit(`"tagged"`, `"untagged"`), []string{sel + `tagPatternList: only allowed with the tagStatus "tagged"`}},
		"any with prefixes":   {edit(`"tagged","tagPatternList"`, `"any","tagPrefixList"`), []string{sel + `tagPrefixList: only allowed with the tagStatus "tagged"`}},
		"tagged with none":    {edit(`"tagPatternList":["v*"],`, ``), []string{sel + "tagPatternList: missing; expected this or tagPrefixList"}},
		"no patterns":         {edit(`["v*"]`, `[]`), []string{sel + "tagPatternList: missing; expected this or tagPrefixList"}},
		"both lists":          {edit(`"tagPatternList"`, `"tagPrefixList":["v"],"tagPatternList"`), []string{sel + "tagPrefixList: not allowed together with tagPatternList"}},
		"patterns no list":    {edit(`["v*"]`, `"v*"`), []string{sel + "tagPatternList: not a list of strings"}},
		"pattern no string":   {edit(`["v*"]`, `["v*",1]`), []string{sel + "tagPatternList: not a list of strings"}},
		"empty pattern":       {edit(`["v*"]`, `["v*",""]`), []string{sel + "tagPatternList[1]: empty"}},
		"pattern of null":     {edit(`["v*"]`, `["v*",null]`), []string{sel + "tagPatternList[1]: empty"}},
		"empty prefix":        {edit(`"tagPatternList":["v*"]`, `"tagPrefixList":[""]`), []string{sel + "tagPrefixList[0]: empty"}},
		"too many wildcards":  {edit(`"v*"`, `"test*1*2*3*4*5*6"`), []string{sel + `tagPatternList[0]: "test*1*2*3*4*5*6" has more than 4 wildcards`}},
		"count type":          {edit("sinceImagePushed", "sinceImageBuilt"), []string{sel + `countType: "sinceImageBuilt" is not one of ["imageCountMoreThan" "sinceImagePushed" "sinceImagePulled" "sinceImageTransitioned"]`}},
		"unit of a count":     {edit("sinceImagePushed", "imageCountMoreThan"), []string{sel + "countUnit: not allowed in a rule by imageCountMoreThan"}},
		"no unit":             {edit(`"countUnit":"days",`, ``), []string{sel + `countUnit: a rule by sinceImagePushed has "days", not ""`}},
		"hours":               {edit(`"days"`, `"hours"`), []string{sel + `countUnit: a rule by sinceImagePushed has "days", not "hours"`}},
		"number 0":            {edit("14", "0"), []string{sel + "countNumber: 0 is not positive"}},
		"negative number":     {edit("14", "-1"), []string{sel + "countNumber: -1 is not positive"}},
		"number a string":     {edit("14", `"14"`), []string{sel + "countNumber: not an integer"}},
		"archive by push":     {edit(`"tagStatus"`, `"storageClass":"archive","tagStatus"`), []string{sel + `storageClass: a rule by sinceImagePushed has "standard" or none, not "archive"`}},
		"no archive":          {edit("sinceImagePushed", "sinceImageTransitioned"), []string{sel + `storageClass: a rule by sinceImageTransitioned has "archive", not ""`}},
		"action":              {edit(`{"type":"expire"}`, `"expire"`), []string{"rules[0].action: not an object"}},
		"no action type":      {edit(`"type":"expire"`, ``), []string{"rules[0].action.type: missing"}},
		"action type":         {edit(`"expire"`, `"delete"`), []string{`rules[0].action.type: "delete" is not one of ["expire" "transition"]`}},
		"target of an expiry": {edit(`"expire"`, `"expire","targetStorageClass":"archive"`), []string{"rules[0].action.targetStorageClass: only allowed with the type transition"}},
		"no target":           {edit(`"expire"`, `"transition"`), []string{`rules[0].action.targetStorageClass: a transition has "archive", not ""`}},
		"transition twice": {
			strings.Replace(validPolicies["archive"], `"expire"`, `"transition","targetStorageClass":"archive"`, 1),
			[]string{"rules[0].action.type: a rule by sinceImageTransitioned can only expire"},
		},
		"any before another": {edit(`"tagged","tagPatternList":["v*"]`, `"any"`, secondRule),
			[]string{"rules[0].rulePriority: 1 is below the priority of rules[1]; a rule on any image has the highest"}},
		"untagged twice": {edit(`"tagged","tagPatternList":["v*"]`, `"untagged"`, secondRule),
			[]string{"rules[1].selection: selects the same images as rules[0]"}},
		"the same tags": {edit(`["v*"]`, `["v*","b*"]`, strings.NewReplacer(`y":1`, `y":2`, `["v*"]`, `["b*","v*","b*"]`).Replace(validRule)),
			[]string{"rules[1].selection: selects the same images as rules[0]"}},
		"a prefix for a pattern": {edit("", "", strings.NewReplacer(`y":1`, `y":2`, `"tagPatternList":["v*"]`, `"tagPrefixList":["v"]`).Replace(validRule)),
			[]string{"rules[1].selection: selects the same images as rules[0]"}},
		"mistakes in two rules": {edit("14", "0", strings.Replace(secondRule, "expire", "explode", 1)),
			[]string{sel + "countNumber: 0 is not positive", `rules[1].action.type: "explode" is not one of ["expire" "transition"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := lifecycle.ParseLocal([]byte(test.text))
			if want := "lifecycle policy: " + strings.Join(test.want, "\n"); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range validPolicies {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"rules":[{"rulePriority":1,"selection":{},"action":null}]}`))
	f.Add([]byte(edit("14", "9223372036854775807")))
	f.Add([]byte(edit("sinceImagePushed", "sinceImagePulled")))
	images := []lifecycle.Image{
		pushed("A", 20*day, "v1"), pushed("B", 10*day, "v2", "*"), pushed("C", day), archived(pushed("D", 99*day), 95*day),
		index(pushed("E", 30*day), "A", "C"), about(pushed("F", 0), "B"), {Digest: "G", Tags: []string{""}},
		{Digest: "H", Pushed: time.Unix(1<<62, 0)}, {Digest: "I", Pushed: time.Unix(-1<<62, 0)},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		wantLenient(t, text, images)
		policy, err := lifecycle.ParseLocal(text)
		if err != nil {
			expired := policy.Expired(images, policyNow)
			if len(expired) != 0 || !strings.HasPrefix(err.Error(), "lifecycle policy: ") {
				t.Errorf("beside the error %v the policy expires %v", err, expired)
			}
			return
		}
		expired := policy.Expired(images, policyNow)
		wantInOrder(t, expired)
		reversed := slices.Clone(images)
		slices.Reverse(reversed)
		if diff := gocmp.Diff(expired, policy.Expired(reversed, policyNow)); diff != "" {
			t.Errorf("in another order:\n%s", diff)
		}
	})
}

// wantInOrder wants the oldest expiry first, none in the future, and no image twice.
func wantInOrder(t interface{ Errorf(string, ...any) }, expired []lifecycle.Expired) {
	if !slices.IsSortedFunc(expired, func(a, b lifecycle.Expired) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Digest, b.Digest))
	}) {
		t.Errorf("not in order: %v", expired)
	}
	seen := make(map[string]bool)
	for _, e := range expired {
		if seen[string(e.Digest)] || e.Since.After(policyNow) {
			t.Errorf("%v is there twice, or too early", e)
		}
		seen[string(e.Digest)] = true
	}
}

// wantLenient wants Parse to agree with ParseLocal about a valid policy whose rules
// ECR documents, and rules that were not understood to expire nothing.
func wantLenient(t *testing.T, text []byte, images []lifecycle.Image) {
	t.Helper()
	stored, err := lifecycle.Parse(text)
	local, invalid := lifecycle.ParseLocal(text)
	expired := stored.Expired(images, policyNow)
	wantInOrder(t, expired)
	switch {
	case err != nil && (len(expired) > 0 || invalid == nil):
		t.Errorf("ECR's policy: %v, and it expires %v; as a local one: %v", err, expired, invalid)
	case invalid == nil && len(stored.NotUnderstood()) == 0:
		if diff := gocmp.Diff(local.Expired(images, policyNow), expired); diff != "" {
			t.Errorf("local and ECR's policy (-local +ECR):\n%s", diff)
		}
	}
}
