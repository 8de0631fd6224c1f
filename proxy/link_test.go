package proxy_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/larder-registry/larder/cache"
)

// The Link of an answer leads to the path of its request, or there is none.
func TestLinkOfAnUpstreamLeadsNowhereElse(t *testing.T) {
	const path = "/v2/one.test/app/tags/list"
	good := "<" + path + `?last=b>; rel="next"`
	var said string
	larder := serveScripted(t, cache.Options{}, &scripted{host: "one.test", list: func(context.Context, string, url.Values) (http.Header, []byte, error) {
		return http.Header{"Link": {said, `<https://evil.test/>; rel="next"`}}, []byte(`{"name":"app","tags":["a"]}`), nil
	}})
	for link, want := range map[string]string{
		`</v2/app/tags/list?last=b>; rel="next"`:                        good,
		`<https://evil.test/v2/other/tags/list?last=b>; rel="next"`:     good,
		`<//evil.test/x?last=b>; rel="next"`:                            good,
		`<javascript:alert(1)?last=b>; rel="next"`:                      good,
		`</x?last=b>; rel="next", <https://evil.test/v2/x>; rel="next"`: good,
		`</x?last=b>; rel="prev", <https://evil.test/v2/x>; rel="next"`: good,
		`</x?last=b>; rel="next"; title="<https://evil.test>"`:          good,
		`</x?last=b>,<https://evil.test/>;rel=next`:                     good,
		`</x?last=b&ns=evil.test>; rel="next"`:                          good,
		`</x?last=` + strings.Repeat("b", 100_000) + `>; rel="next"`:    "",
		`</x?last=b%0d%0aSet-Cookie:%20a=b>; rel="next"`:                "<" + path + `?last=b%0D%0ASet-Cookie%3A+a%3Db>; rel="next"`,
		`</x?last=%3E;%20rel=next,%3Chttps://evil.test%3E>; rel="next"`: "<" + path + `>; rel="next"`, // a semicolon in a query
		`</x?last=b#https://evil.test>; rel="next"`:                     good,
		`<http://[::1>; rel="next"`:                                     "",
		`<%zz>; rel="next"`:                                             "",
		`evil`:                                                          "",
		`<`:                                                             "",
		`>`:                                                             "<" + path + `>; rel="next"`,
		strings.Repeat("<", 100_000):                                    "",
		"</x?last=\xff\xfe>; rel=\"next\"":                              "<" + path + `?last=%FF%FE>; rel="next"`,
	} {
		said = link
		got := ask(t, larder, path)
		if links := got.Header()["Link"]; got.Code != http.StatusOK || strings.Join(links, "\n") != want {
			t.Errorf("%.100q became %.200q, %d; want %q", link, links, got.Code, want)
		}
	}
}
