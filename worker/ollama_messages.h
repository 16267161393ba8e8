/* OpenAI's chat messages as Ollama's: text parts become one content, images their base64, a tool
 * call's arguments an object. Messages that are the same in both are passed on as they stand. */
#pragma once
#include "base/buf.h"
#include "base/err.h"

/* Appends the array. ERR_INVALID: a part that Ollama cannot take (an image by URL, audio …). */
int ollama_messages(struct str messages, struct buf *b, struct err *e);
