/* The native methods of org.embgemma.Native, which says what each takes and gives. */
#include "embgemma.h"

#include <jni.h>
#include <stdlib.h>
#include <string.h>

#define NATIVE(type, name) JNIEXPORT type JNICALL Java_org_embgemma_Native_##name

typedef struct handle {
    eg_model *model;
    eg_context *context;
} handle;

static const handle *at(jlong address) { return (const handle *)(intptr_t)address; }

static void *allocate(JNIEnv *env, size_t bytes)
{
    void *memory = malloc(bytes);
    if (memory == NULL) {
        (*env)->ThrowNew(env, (*env)->FindClass(env, "java/lang/OutOfMemoryError"), "no memory for a call");
    }
    return memory;
}

static jbyteArray bytes_of(JNIEnv *env, const char *text)
{
    const jsize length = text != NULL ? (jsize)strlen(text) : 0;
    jbyteArray bytes = text != NULL ? (*env)->NewByteArray(env, length) : NULL;
    if (bytes != NULL) {
        (*env)->SetByteArrayRegion(env, bytes, 0, length, (const jbyte *)text);
    }
    return bytes;
}

/* The array's bytes, to be let go; NULL of NULL, and with an exception pending if memory is refused. */
static jbyte *hold(JNIEnv *env, jbyteArray bytes)
{
    return bytes != NULL ? (*env)->GetByteArrayElements(env, bytes, NULL) : NULL;
}

static void let_go(JNIEnv *env, jbyteArray bytes, jbyte *held)
{
    if (held != NULL) {
        (*env)->ReleaseByteArrayElements(env, bytes, held, JNI_ABORT);
    }
}

/* ---- open and close ---------------------------------------------------------------------------------------------- */

/* Makes the context of a model that was opened with this status. */
static jint finish(JNIEnv *env, eg_status status, eg_model *model, jint threads, jlongArray out)
{
    handle *h = status == EG_OK ? allocate(env, sizeof *h) : NULL;
    if (h == NULL) {
        eg_model_free(status == EG_OK ? model : NULL);
        return (jint)status;
    }
    h->model = model;
    status = eg_context_create(model, (uint32_t)threads, NULL, &h->context);
    if (status != EG_OK) {
        eg_model_free(model);
        free(h);
        return (jint)status;
    }
    (*env)->SetLongArrayRegion(env, out, 0, 1, &(jlong){(jlong)(intptr_t)h});
    return EG_OK;
}

NATIVE(jint, openPath)(JNIEnv *env, jclass class, jbyteArray path, jint threads, jlongArray out)
{
    (void)class;
    eg_model *model = NULL;
    jbyte *held = hold(env, path);
    if (held == NULL) {
        return EG_ERROR_MEMORY;
    }
    const eg_status status = eg_model_open((const char *)held, &model);
    let_go(env, path, held);
    return finish(env, status, model, threads, out);
}

NATIVE(jint, openBuffer)
(JNIEnv *env, jclass class, jobject buffer, jint position, jint bytes, jint threads, jlongArray out)
{
    (void)class;
    eg_model *model = NULL;
    const char *data = (*env)->GetDirectBufferAddress(env, buffer);
    const eg_status status = eg_model_open_memory(data != NULL ? data + position : NULL, (size_t)bytes, NULL, &model);
    return finish(env, status, model, threads, out);
}

NATIVE(jint, openDescriptor)
(JNIEnv *env, jclass class, jint descriptor, jlong offset, jlong bytes, jint threads, jlongArray out)
{
    (void)class;
    eg_model *model = NULL;
    const eg_status status = eg_model_open_descriptor(descriptor, (uint64_t)offset, (uint64_t)bytes, &model);
    return finish(env, status, model, threads, out);
}

NATIVE(void, free)(JNIEnv *env, jclass class, jlong address)
{
    (void)env, (void)class;
    handle *h = (handle *)(intptr_t)address;
    eg_context_free(h->context);
    eg_model_free(h->model);
    free(h);
}

/* ---- texts to vectors -------------------------------------------------------------------------------------------- */

/* Embeds texts that lie end to end. */
static eg_status embed(JNIEnv *env, const handle *h, const char *joined, const jint *ends, size_t count,
                       const char *prompt_name, jint dim, float *out)
{
    const char **begins = allocate(env, (count + 1) * sizeof *begins);
    size_t *bytes = allocate(env, (count + 1) * sizeof *bytes);
    eg_status status = EG_ERROR_MEMORY;
    if (begins != NULL && bytes != NULL) {
        for (size_t i = 0, begin = 0; i < count; begin = (size_t)ends[i++]) {
            begins[i] = joined + begin;
            bytes[i] = (size_t)ends[i] - begin;
        }
        status = eg_embed(h->context, begins, bytes, count, prompt_name, (uint32_t)dim, out);
    }
    free(bytes);
    free(begins);
    return status;
}

NATIVE(jint, embed)
(JNIEnv *env, jclass class, jlong address, jbyteArray joined, jintArray ends, jbyteArray prompt_name, jint dim,
 jfloatArray out)
{
    (void)class;
    const size_t count = (size_t)(*env)->GetArrayLength(env, ends);
    eg_status status = EG_ERROR_MEMORY;
    jbyte *texts = hold(env, joined), *name = texts != NULL ? hold(env, prompt_name) : NULL;
    const int held = texts != NULL && (name != NULL || prompt_name == NULL);
    jint *ends_held = held ? (*env)->GetIntArrayElements(env, ends, NULL) : NULL;
    jfloat *vectors = ends_held != NULL ? (*env)->GetFloatArrayElements(env, out, NULL) : NULL;
    if (vectors != NULL) {
        status = embed(env, at(address), (const char *)texts, ends_held, count, (const char *)name, dim, vectors);
        (*env)->ReleaseFloatArrayElements(env, out, vectors, 0);
    }
    if (ends_held != NULL) {
        (*env)->ReleaseIntArrayElements(env, ends, ends_held, JNI_ABORT);
    }
    let_go(env, prompt_name, name);
    let_go(env, joined, texts);
    return (jint)status;
}

/* ---- facts ------------------------------------------------------------------------------------------------------- */

NATIVE(jint, dimensions)(JNIEnv *env, jclass class, jlong address)
{
    (void)env, (void)class;
    return (jint)eg_model_dim(at(address)->model);
}

NATIVE(jint, maxTokens)(JNIEnv *env, jclass class, jlong address)
{
    (void)env, (void)class;
    return (jint)eg_model_max_tokens(at(address)->model);
}

NATIVE(jint, threads)(JNIEnv *env, jclass class, jlong address)
{
    (void)env, (void)class;
    return (jint)eg_context_threads(at(address)->context);
}

NATIVE(jbyteArray, instructionSet)(JNIEnv *env, jclass class, jlong address)
{
    (void)class;
    return bytes_of(env, eg_context_isa(at(address)->context));
}

NATIVE(jbyteArray, promptName)(JNIEnv *env, jclass class, jlong address, jint index)
{
    (void)class;
    return bytes_of(env, eg_model_prompt_name(at(address)->model, (size_t)index));
}

NATIVE(jint, fingerprint)
(JNIEnv *env, jclass class, jlong address, jbyteArray prompt_name, jint dim, jbyteArray out)
{
    (void)class;
    char text[EG_FINGERPRINT_BYTES];
    jbyte *name = hold(env, prompt_name);
    if (name == NULL && prompt_name != NULL) {
        return EG_ERROR_MEMORY;
    }
    const eg_status status = eg_model_fingerprint(at(address)->model, (const char *)name, (uint32_t)dim, text);
    let_go(env, prompt_name, name);
    if (status == EG_OK) {
        (*env)->SetByteArrayRegion(env, out, 0, (jsize)strlen(text), (const jbyte *)text);
    }
    return (jint)status;
}

NATIVE(jbyteArray, message)(JNIEnv *env, jclass class)
{
    (void)class;
    return bytes_of(env, eg_error_message());
}
