/* Attention in floating point has no scales: what it does in their place. The including file has `narrow`. */

static void scale_scores(float *scores, size_t n, float query_scale, const float *key_scales)
{
    (void)scores;
    (void)n;
    (void)query_scale;
    (void)key_scales;
}

static float narrow_weights(float *weights, size_t n, float sum, const float *value_scales)
{
    (void)value_scales;
    narrow(weights, n);
    return 1.0f / sum;
}
