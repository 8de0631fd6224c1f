package ecrtest

import "os"

// Environment returns variables under which the AWS SDK calls this server in
// place of AWS, and finds nothing of the machine's own: no profile and no
// credentials. [Key.Environment] and [Running.ContainerEnvironment] have some.
func (r *Running) Environment() map[string]string {
	return map[string]string{
		"AWS_ENDPOINT_URL_ECR":                   r.Endpoint,
		"AWS_ENDPOINT_URL_ECR_PUBLIC":            r.Endpoint,
		"AWS_ENDPOINT_URL_STS":                   r.Endpoint,
		"AWS_EC2_METADATA_SERVICE_ENDPOINT":      r.Endpoint,
		"AWS_EC2_METADATA_DISABLED":              "true",
		"AWS_REGION":                             r.opts.Region,
		"AWS_CONFIG_FILE":                        os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE":            os.DevNull,
		"AWS_ENDPOINT_URL":                       "",
		"AWS_CA_BUNDLE":                          "",
		"AWS_PROFILE":                            "",
		"AWS_ACCESS_KEY_ID":                      "",
		"AWS_SECRET_ACCESS_KEY":                  "",
		"AWS_SESSION_TOKEN":                      "",
		"AWS_ROLE_ARN":                           "",
		"AWS_WEB_IDENTITY_TOKEN_FILE":            "",
		"AWS_CONTAINER_CREDENTIALS_FULL_URI":     "",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":      "",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "",
	}
}

// Environment returns the variables that hand the key to the AWS SDK.
func (k Key) Environment() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID":     k.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": k.SecretAccessKey,
		"AWS_SESSION_TOKEN":     k.SessionToken,
	}
}

// ContainerEnvironment returns the variables of a container with the role, by
// EKS Pod Identity or ECS. See [AWS.ContainerAuthorization] for the former's
// token in a file.
func (r *Running) ContainerEnvironment(role string) (map[string]string, error) {
	authorization, err := r.aws.ContainerAuthorization(role)
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"AWS_CONTAINER_CREDENTIALS_FULL_URI": r.Endpoint + containerPath,
		"AWS_CONTAINER_AUTHORIZATION_TOKEN":  authorization,
	}, nil
}
