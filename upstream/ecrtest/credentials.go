package ecrtest

import (
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// containerPath is where EKS Pod Identity's agent answers, and ECS's.
const containerPath = "/v1/credentials"

// Paths of the instance metadata service, IMDSv2.
const (
	metadataTokenPath = "/latest/api/token"
	metadataRolesPath = "/latest/meta-data/iam/security-credentials/"
	metadataToken     = "metadata-token"
)

// ContainerAuthorization returns what a container with the role sends as its
// Authorization to get credentials: the content of the file
// AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE.
func (a *AWS) ContainerAuthorization(role string) (string, error) {
	if a.role(role) == nil {
		return "", fmt.Errorf("giving a container the role %s: %w", role, fs.ErrNotExist)
	}
	authorization := uuid.NewString()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.containers[authorization] = role
	return authorization, nil
}

// SetInstanceRole gives the instance a role, or with "" none. The instance
// metadata service hands out its credentials, at the registry's endpoint.
func (a *AWS) SetInstanceRole(role string) error {
	if role != "" && a.role(role) == nil {
		return fmt.Errorf("giving the instance the role %s: %w", role, fs.ErrNotExist)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.instance = role
	return nil
}

// isCredentials tells whether a path is one of the endpoints that hand out
// credentials.
func isCredentials(path string) bool {
	return path == containerPath || path == metadataTokenPath || strings.HasPrefix(path, metadataRolesPath)
}

func (s *Server) serveCredentials(w http.ResponseWriter, r *http.Request) {
	s.exchange(w, r, subject{op: Credentials}, func(x *exchange) {
		switch r.URL.Path {
		case containerPath:
			s.answerContainer(x)
		case metadataTokenPath:
			s.answerMetadataToken(x)
		default:
			s.answerMetadata(x, strings.TrimPrefix(r.URL.Path, metadataRolesPath))
		}
	})
}

func (s *Server) answerContainer(x *exchange) {
	s.aws.mu.RLock()
	arn := s.aws.containers[x.r.Header.Get("Authorization")]
	s.aws.mu.RUnlock()
	role := s.aws.role(arn)
	if role == nil {
		x.failCredentials(refusal{http.StatusUnauthorized, "AccessDeniedException", "Unauthorized"})
		return
	}
	x.replyCredentials(s.aws, role, "container")
}

// answerMetadataToken gives the token that IMDSv2 asks for with everything.
func (s *Server) answerMetadataToken(x *exchange) {
	const header = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	ttl := x.r.Header.Get(header)
	if x.r.Method != http.MethodPut || ttl == "" {
		x.reply(http.StatusBadRequest, "", nil)
		return
	}
	x.Header().Set(header, ttl)
	x.reply(http.StatusOK, "text/plain", []byte(metadataToken))
}

// answerMetadata lists the instance's role, or gives its credentials.
func (s *Server) answerMetadata(x *exchange, name string) {
	s.aws.mu.RLock()
	arn := s.aws.instance
	s.aws.mu.RUnlock()
	role := s.aws.role(arn)
	switch {
	case x.r.Header.Get("X-Aws-Ec2-Metadata-Token") != metadataToken:
		x.reply(http.StatusUnauthorized, "", nil)
	case role == nil || name != "" && name != lastElement(arn):
		x.reply(http.StatusNotFound, "", nil)
	case name == "":
		x.reply(http.StatusOK, "text/plain", []byte(lastElement(arn)))
	default:
		x.replyCredentials(s.aws, role, "i-0123456789abcdef0")
	}
}

// replyCredentials begins a session and sends its credentials.
func (x *exchange) replyCredentials(a *AWS, r *Role, session string) {
	k, _ := a.begin(r, session, 0)
	x.replyJSON(http.StatusOK, "application/json", map[string]string{
		"Code":            "Success",
		"Type":            "AWS-HMAC",
		"AccessKeyId":     k.AccessKeyID,
		"SecretAccessKey": k.SecretAccessKey,
		"Token":           k.SessionToken,
		"AccountId":       accountOf(r.ARN),
		"RoleArn":         r.ARN,
		"LastUpdated":     a.now().UTC().Format(time.RFC3339),
		"Expiration":      k.Expires.UTC().Format(time.RFC3339),
	})
}

func (x *exchange) failCredentials(r refusal) {
	x.replyJSON(r.status, "application/json", map[string]string{"code": r.code, "message": r.message})
}
