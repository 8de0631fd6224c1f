package iam_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParsePolicyReadsDocuments(t *testing.T) {
	got, err := iam.ParsePolicy([]byte(`{
		"Version": "2012-10-17", "Id": "pull",
		"Statement": [
			{"Sid": "Token", "Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
			{"Effect": "Deny", "Action": ["a:b", "a:c"], "Resource": ["x", "y"], "Principal": {"AWS": "123456789012"}},
			{"Effect": "Allow", "Action": "a:*", "Principal": "*"}
		]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := iam.Policy{
		iam.Allow("ecr:GetAuthorizationToken").On("*"),
		iam.Deny("a:b", "a:c").On("x", "y").To("123456789012"),
		iam.Allow("a:*").To("*"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	one, err := iam.ParsePolicy([]byte(`{"Version":"2008-10-17","Statement":{"Effect":"Allow","Action":"a:b"}}`))
	if diff := cmp.Diff(iam.Policy{iam.Allow("a:b")}, one); diff != "" || err != nil {
		t.Errorf("a single statement: %v (-want +got):\n%s", err, diff)
	}
}

func TestParsePolicyRefusesWhatIsNotEvaluated(t *testing.T) {
	for name, text := range map[string]string{
		"condition": `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"a:b","Condition":{}}}`,
		"service":   `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a:b","Principal":{"Service":"x"}}]}`,
		"effect":    `{"Version":"2012-10-17","Statement":{"Effect":"allow","Action":"a:b"}}`,
		"no action": `{"Version":"2012-10-17","Statement":{"Effect":"Allow"}}`,
		"version":   `{"Version":"2015-09-21","Statement":{"Effect":"Allow","Action":"a:b"}}`,
		"not JSON":  `Version`,
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := iam.ParsePolicy([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), "reading a policy: ") {
				t.Errorf("got %v and %v", p, err)
			}
		})
	}
}
