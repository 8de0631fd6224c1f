package sts

import (
	"net/http"
	"strings"
	"time"

	"github.com/larder-registry/larder/upstream/ecrtest/internal/frontend"
	"github.com/larder-registry/larder/upstream/ecrtest/internal/iam"
)

// ContainerPath is the path at which the agent of EKS Pod Identity answers, and ECS.
const ContainerPath = "/v1/credentials"

// Paths of the instance metadata service, IMDSv2, and the token that it wants.
const (
	metadataTokenPath = "/latest/api/token"
	metadataRolesPath = "/latest/meta-data/iam/security-credentials/"
	metadataToken     = "metadata-token"
)

// Credentials gives credentials to containers and to the instance. It may be used by
// several goroutines at once.
type Credentials struct {
	Front    *frontend.Frontend
	Accounts *iam.Accounts
	Now      func() time.Time
}

// IsCredentialsPath reports whether a path is one of the endpoints of [Credentials].
func IsCredentialsPath(path string) bool {
	return path == ContainerPath || path == metadataTokenPath || strings.HasPrefix(path, metadataRolesPath)
}

// ServeHTTP answers the requests of the endpoints.
func (c Credentials) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.Front.Serve(w, r, frontend.Subject{Op: frontend.Credentials}, failCredentials, func(x *frontend.Exchange) {
		switch r.URL.Path {
		case ContainerPath:
			c.answerContainer(x)
		case metadataTokenPath:
			answerMetadataToken(x)
		default:
			c.answerMetadata(x, strings.TrimPrefix(r.URL.Path, metadataRolesPath))
		}
	})
}

func (c Credentials) answerContainer(x *frontend.Exchange) {
	role := c.Accounts.ContainerRole(x.Request.Header.Get("Authorization"))
	if role == nil {
		failCredentials(x, frontend.Error{Status: http.StatusUnauthorized, Code: "AccessDeniedException", Message: "Unauthorized"})
		return
	}
	c.begin(x, role, "container")
}

// answerMetadataToken sends the token that every other request of IMDSv2 needs.
func answerMetadataToken(x *frontend.Exchange) {
	const header = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	ttl := x.Request.Header.Get(header)
	if x.Request.Method != http.MethodPut || ttl == "" {
		x.Reply(http.StatusBadRequest, "", nil)
		return
	}
	x.Header().Set(header, ttl)
	x.Reply(http.StatusOK, "text/plain", []byte(metadataToken))
}

// answerMetadata sends the name of the instance's role, or the credentials of the
// role of that name.
func (c Credentials) answerMetadata(x *frontend.Exchange, name string) {
	role := c.Accounts.InstanceRole()
	switch {
	case x.Request.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataToken:
		x.Reply(http.StatusUnauthorized, "", nil)
	case role == nil || name != "" && name != role.Name():
		x.Reply(http.StatusNotFound, "", nil)
	case name == "":
		x.Reply(http.StatusOK, "text/plain", []byte(role.Name()))
	default:
		c.begin(x, role, "i-0123456789abcdef0")
	}
}

// begin begins a session and sends its credentials.
func (c Credentials) begin(x *frontend.Exchange, r *iam.Role, session string) {
	k, _ := c.Accounts.Begin(r, session, 0)
	x.ReplyJSON(http.StatusOK, "application/json", map[string]string{
		"Code":            "Success",
		"Type":            "AWS-HMAC",
		"AccessKeyId":     k.AccessKeyID,
		"SecretAccessKey": k.SecretAccessKey,
		"Token":           k.SessionToken,
		"AccountId":       iam.AccountOf(r.ARN),
		"RoleArn":         r.ARN,
		"LastUpdated":     c.Now().UTC().Format(time.RFC3339),
		"Expiration":      k.Expires.UTC().Format(time.RFC3339),
	})
}

// failCredentials sends an error in the form of the credential endpoints.
func failCredentials(x *frontend.Exchange, e frontend.Error) {
	x.ReplyJSON(e.Status, "application/json", map[string]string{"code": e.Code, "message": e.Message})
}
