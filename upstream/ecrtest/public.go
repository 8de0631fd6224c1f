package ecrtest

// publicHost is the name of ECR Public.
const publicHost = "public.ecr.aws"
