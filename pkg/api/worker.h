/* What the controller and its workers agree on, and a change of which reaches pods that run already: names of
 * the children both know, the worker's arguments, where its files are mounted, ports, paths and times of its
 * end, the words of its status, keys of its checkpoint. Both sides take them from here. Constants only. */
#pragma once

#include "base/clock.h"

/* ---- children ----------------------------------------------------------- */

/* Behind the Trigger's name. */
#define WORKER_SUFFIX "-sluice" /* the Deployment, its rights and its configuration */
#define WORKER_CHECKPOINT_SUFFIX "-checkpoint"

/* ---- the command line --------------------------------------------------- */

#define WORKER_COMMAND "worker"
#define WORKER_OPTION_TRIGGER "trigger"
#define WORKER_OPTION_SINK "sink"
#define WORKER_OPTION_DEAD_LETTER "dead-letter"
#define WORKER_OPTION_INSTANCE "instance"
#define WORKER_OPTION_ADMIN "admin"
#define WORKER_OPTION_LISTEN "listen"
#define WORKER_OPTION_SECRETS "secrets"
#define WORKER_OPTION_ENDING "ending"
#define WORKER_OPTION_TLS_CERT "tls-cert"
#define WORKER_OPTION_TLS_KEY "tls-key"
#define WORKER_OPTION_TLS_CLIENT_CA "tls-client-ca"
#define WORKER_OPTION_TRUSTED_PROXY "trusted-proxy"
#define WORKER_OPTION_LOG_LEVEL "log-level"

/* ---- the container ------------------------------------------------------ */

#define WORKER_FOLDER "/etc/sluice"             /* the ConfigMap */
#define WORKER_TRIGGER_FILE "trigger.json"      /* its key */
#define WORKER_SECRETS "/etc/sluice-secrets"    /* WORKER_SECRETS/SECRET/KEY */
#define WORKER_CLOUD_FOLDER "/etc/sluice-cloud" /* of WORKER_CLOUD_TOKEN_FILE, the ServiceAccount's token */
#define WORKER_CLOUD_TOKEN_FILE "token"
#define WORKER_ENV_POD "POD_NAME"
#define WORKER_ENV_NAMESPACE "POD_NAMESPACE"

/* Numbers that stand in texts, too. */
#define WORKER_TEXT_OF(number) #number
#define WORKER_TEXT(number) WORKER_TEXT_OF(number)
#define WORKER_LISTEN_PORT 8080
#define WORKER_ADMIN_PORT 8081
#define WORKER_LISTEN_ADDRESS ":" WORKER_TEXT(WORKER_LISTEN_PORT)
#define WORKER_ADMIN_ADDRESS ":" WORKER_TEXT(WORKER_ADMIN_PORT)
#define WORKER_PATH_LIVE "/livez"
#define WORKER_PATH_READY "/readyz"

/* At SIGTERM: a push source goes on, while others still know the pod's address: for WORKER_LINGER, and then
 * until no new connection has come for WORKER_QUIET, WORKER_LINGER_MOST at most; what is in flight may take
 * WORKER_GRACE; then the kubelet kills, WORKER_TERMINATION after the signal. */
#define WORKER_LINGER (8 * USEC_SEC)
#define WORKER_QUIET (4 * USEC_SEC)
#define WORKER_LINGER_MOST (30 * USEC_SEC)
#define WORKER_GRACE (20 * USEC_SEC)
#define WORKER_TERMINATION (60 * USEC_SEC)
_Static_assert(WORKER_LINGER <= WORKER_LINGER_MOST && WORKER_LINGER_MOST + WORKER_GRACE < WORKER_TERMINATION,
               "a worker ends before it is killed");

/* ---- its Leases --------------------------------------------------------- */

/* Of a source that workers share: one for each slot, TRIGGER-sluice-N. */
#define WORKER_ANNOTATION_WAITS API_GROUP "/waits" /* who waits for the slot: port/claims.h */
/* Of the controller: how many slots the Trigger has, and since which of its generations, for workers that
 * outlived their Deployment. */
#define WORKER_ANNOTATION_SLOTS API_GROUP "/slots"
#define WORKER_ANNOTATION_GENERATION API_GROUP "/generation"

/* ---- its entry of status.workers[] -------------------------------------- */

#define WORKER_FIELD_MANAGER "sluice-worker-"     /* before the pod's name */
#define WORKER_EVENT_REPORTER "sluice.dev/worker" /* of the Kubernetes events that it writes */

#define WORKER_SOURCE_CONNECTING "Connecting"
#define WORKER_SOURCE_CONNECTED "Connected"
#define WORKER_SOURCE_IDLE "Idle"
#define WORKER_SOURCE_STANDBY "Standby"
#define WORKER_SOURCE_DISCONNECTED "Disconnected"
#define WORKER_SOURCE_FAILED "Failed"
#define WORKER_SOURCE_REMOVED "Removed" /* what it had outside the cluster is gone */

#define WORKER_DELIVERY_DELIVERING "Delivering"
#define WORKER_DELIVERY_RETRYING "Retrying"
#define WORKER_DELIVERY_THROTTLED "Throttled"
#define WORKER_DELIVERY_FAILING "Failing"
#define WORKER_DELIVERY_BLOCKED "Blocked"
#define WORKER_DELIVERY_STOPPED "Stopped" /* of a Trigger that could not be started */

/* ---- the checkpoint ----------------------------------------------------- */

/* Written before anything is made outside the cluster: while it is not there, nothing was. */
#define WORKER_CHECKPOINT_SUBSCRIPTION "subscription"
