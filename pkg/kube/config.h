/* Where the API server is and who we are there: in a pod from the service account, else from a kubeconfig.
 * Owned by the caller; loop's thread. */
#pragma once

#include "base/error.h"
#include "base/buf.h"

struct kube_config {
        char *server;            /* https://HOST:PORT, no slash at the end */
        char *ca;                /* PEM; NULL: the system's */
        char *certificate, *key; /* PEM; NULL: none */
        char *token;             /* NULL: none */
        char *token_file;        /* read again each minute: tokens rotate */
        char *ca_file;           /* read again each minute: CAs rotate */
        char *tls_server_name;
        bool insecure;
        char *namespace_; /* of the service account or context; "default" otherwise */
};

/* path NULL: $KUBECONFIG (its first file), else in a pod the service account, else ~/.kube/config. Errors
 * name the file and member. */
int kube_config_load(struct kube_config *, const char *path, struct error *) MUST_CHECK;
void kube_config_done(struct kube_config *);
