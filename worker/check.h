/* A node's active health check: find out its dialect (once), ask for its health, its models, and
 * (once) its slots; one request after the other. Loop thread only. */
#pragma once

struct node;

/* Checks now, or right after the check under way. */
void check_now(struct node *n);
void check_init(struct node *n);
void check_stop(struct node *n);
