package upstream

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// goodRule is a rule that the mistakes below are made in.
const goodRule = `{"rulePriority":1,"description":"d","selection":{"tagStatus":"tagged","tagPatternList":["v*"],` +
	`"countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}`

// secondRule stands beside it.
const secondRule = `{"rulePriority":2,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},` +
	`"action":{"type":"expire"}}`

// edit is a policy of goodRule with one text in place of another, and of other
// rules.
func edit(from, to string, more ...string) string {
	if !strings.Contains(goodRule, from) {
		panic(from + " is not in the rule")
	}
	rules := append([]string{strings.Replace(goodRule, from, to, 1)}, more...)
	return `{"rules":[` + strings.Join(rules, ",") + `]}`
}

var goodPolicies = map[string]string{
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

func TestGoodPoliciesAreRead(t *testing.T) {
	for name, text := range goodPolicies {
		if _, err := ParseLifecyclePolicy([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLocalRulesMayExpireByPull(t *testing.T) {
	text := []byte(edit("sinceImagePushed", "sinceImagePulled"))
	if _, err := ParseLocalPolicy(text); err != nil {
		t.Error(err)
	}
	want := PolicyMistakes{{"rules[0].action.type", "at ECR a rule by sinceImagePulled only moves images to the archive"}}
	if _, err := ParseLifecyclePolicy(text); !gocmp.Equal(err, error(want)) {
		t.Errorf("at ECR: %v", err)
	}
}

func TestPolicyMistakesAreNamed(t *testing.T) {
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
		"empty rules":        {`{"rules":[]}`, []string{"rules: 0 of them; a policy has 1 to 50"}},
		"too many rules":     {`{"rules":[` + strings.Repeat("0,", 50) + `0]}`, []string{"rules: 51 of them; a policy has 1 to 50"}},
		"too long":           {edit("", "") + strings.Repeat(" ", 30_720), []string{"30921 characters, more than the 30720 that ECR takes"}},
		"unknown key":        {`{"Rules":[],"rules":[` + goodRule + `]}`, []string{"Rules: there is no such key"}},
		"rule no object":     {`{"rules":[1]}`, []string{"rules[0]: not an object"}},
		"empty rule":         {`{"rules":[{}]}`, []string{"rules[0].rulePriority: missing", "rules[0].selection: missing", "rules[0].action: missing"}},
		"priority a string":  {edit(`y":1`, `y":"1"`), []string{"rules[0].rulePriority: not an integer"}},
		"priority a half":    {edit(`y":1`, `y":1.5`), []string{"rules[0].rulePriority: not an integer"}},
		"priority too large": {edit(`y":1`, `y":99999999999999999999`), []string{"rules[0].rulePriority: not an integer"}},
		"priority 0":         {edit(`y":1`, `y":0`), []string{"rules[0].rulePriority: 0 is not positive"}},
		"priority twice": {edit("", "", strings.Replace(secondRule, `y":2`, `y":1`, 1)),
			[]string{"rules[1].rulePriority: 1 is that of rules[0] too"}},
		"key twice":           {edit(`"description":"d"`, `"rulePriority":2`), []string{"rules[0].rulePriority: given twice"}},
		"key in other case":   {edit(`"description"`, `"Description"`), []string{"rules[0].Description: there is no such key"}},
		"null":                {edit(`"d"`, `null`), []string{"rules[0].description: not a string"}},
		"selection of null":   {edit(`"selection":{`, `"selection":null,"x":{`), []string{"rules[0].selection: not an object", "rules[0].x: there is no such key"}},
		"description":         {edit(`"d"`, `{}`), []string{"rules[0].description: not a string"}},
		"selection":           {edit(`"selection":{`, `"selection":1,"x":{`), []string{"rules[0].x: there is no such key", "rules[0].selection: not an object"}},
		"empty selection":     {edit(`"selection":{`, `"selection":{},"x":{`), []string{"rules[0].x: there is no such key", sel + "tagStatus: missing", sel + "countType: missing", sel + "countNumber: missing"}},
		"tag status":          {edit(`"tagged"`, `"TAGGED"`), []string{sel + `tagStatus: "TAGGED" is not one of ["tagged" "untagged" "any"]`}},
		"untagged with tags":  {edit(`"tagged"`, `"untagged"`), []string{sel + `tagPatternList: only a rule with the tagStatus "tagged" has one`}},
		"any with prefixes":   {edit(`"tagged","tagPatternList"`, `"any","tagPrefixList"`), []string{sel + `tagPrefixList: only a rule with the tagStatus "tagged" has one`}},
		"tagged with none":    {edit(`"tagPatternList":["v*"],`, ``), []string{sel + "tagPatternList: missing, and so is tagPrefixList"}},
		"no patterns":         {edit(`["v*"]`, `[]`), []string{sel + "tagPatternList: missing, and so is tagPrefixList"}},
		"both lists":          {edit(`"tagPatternList"`, `"tagPrefixList":["v"],"tagPatternList"`), []string{sel + "tagPrefixList: a rule has this or tagPatternList, not both"}},
		"patterns no list":    {edit(`["v*"]`, `"v*"`), []string{sel + "tagPatternList: not a list of strings"}},
		"pattern no string":   {edit(`["v*"]`, `["v*",1]`), []string{sel + "tagPatternList: not a list of strings"}},
		"empty pattern":       {edit(`["v*"]`, `["v*",""]`), []string{sel + "tagPatternList[1]: empty"}},
		"pattern of null":     {edit(`["v*"]`, `["v*",null]`), []string{sel + "tagPatternList[1]: empty"}},
		"empty prefix":        {edit(`"tagPatternList":["v*"]`, `"tagPrefixList":[""]`), []string{sel + "tagPrefixList[0]: empty"}},
		"too many wildcards":  {edit(`"v*"`, `"test*1*2*3*4*5*6"`), []string{sel + `tagPatternList[0]: "test*1*2*3*4*5*6" has more than 4 wildcards`}},
		"count type":          {edit("sinceImagePushed", "sinceImageBuilt"), []string{sel + `countType: "sinceImageBuilt" is not one of ["imageCountMoreThan" "sinceImagePushed" "sinceImagePulled" "sinceImageTransitioned"]`}},
		"unit of a count":     {edit("sinceImagePushed", "imageCountMoreThan"), []string{sel + "countUnit: a rule by imageCountMoreThan has none"}},
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
		"target of an expiry": {edit(`"expire"`, `"expire","targetStorageClass":"archive"`), []string{"rules[0].action.targetStorageClass: only a transition has one"}},
		"no target":           {edit(`"expire"`, `"transition"`), []string{`rules[0].action.targetStorageClass: a transition has "archive", not ""`}},
		"transition twice": {
			strings.Replace(goodPolicies["archive"], `"expire"`, `"transition","targetStorageClass":"archive"`, 1),
			[]string{"rules[0].action.type: a rule by sinceImageTransitioned can only expire"},
		},
		"any before another": {edit(`"tagged","tagPatternList":["v*"]`, `"any"`, secondRule),
			[]string{"rules[0].rulePriority: 1 is below that of rules[1]; a rule on any image has the highest"}},
		"untagged twice": {edit(`"tagged","tagPatternList":["v*"]`, `"untagged"`, secondRule),
			[]string{"rules[1].selection: selects the same images as rules[0]"}},
		"the same tags": {edit(`["v*"]`, `["v*","b*"]`, strings.NewReplacer(`y":1`, `y":2`, `["v*"]`, `["b*","v*","b*"]`).Replace(goodRule)),
			[]string{"rules[1].selection: selects the same images as rules[0]"}},
		"mistakes in two rules": {edit("14", "0", strings.Replace(secondRule, "expire", "explode", 1)),
			[]string{sel + "countNumber: 0 is not positive", `rules[1].action.type: "explode" is not one of ["expire" "transition"]`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseLifecyclePolicy([]byte(test.text))
			if want := "lifecycle policy: " + strings.Join(test.want, "\n"); err == nil || err.Error() != want {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
}

func FuzzParseLifecyclePolicy(f *testing.F) {
	for _, text := range goodPolicies {
		f.Add([]byte(text))
	}
	f.Add([]byte(`{"rules":[{"rulePriority":1,"selection":{},"action":null}]}`))
	f.Add([]byte(edit("14", "9223372036854775807")))
	f.Add([]byte(edit("sinceImagePushed", "sinceImagePulled")))
	images := []Image{
		pushed("A", 20*day, "v1"), pushed("B", 10*day, "v2", "*"), pushed("C", day), archived(pushed("D", 99*day), 95*day),
		index(pushed("E", 30*day), "A", "C"), about(pushed("F", 0), "B"), {Digest: "G", Tags: []string{""}},
		{Digest: "H", Pushed: time.Unix(1<<62, 0)}, {Digest: "I", Pushed: time.Unix(-1<<62, 0)},
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		policy, err := ParseLocalPolicy(text)
		if err != nil {
			if len(policy.rules) != 0 || !strings.HasPrefix(err.Error(), "lifecycle policy: ") {
				t.Errorf("%d rules beside the error %v", len(policy.rules), err)
			}
			return
		}
		if n := len(policy.rules); n < 1 || n > maxPolicyRules {
			t.Errorf("%d rules", n)
		}
		for i, rule := range policy.rules {
			if rule.priority < 1 || rule.number < 1 || i > 0 && rule.priority <= policy.rules[i-1].priority {
				t.Errorf("rule %d is %+v, after %+v", i, rule, policy.rules[:i])
			}
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
func wantInOrder(t interface{ Errorf(string, ...any) }, expired []Expiry) {
	if !slices.IsSortedFunc(expired, func(a, b Expiry) int {
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
