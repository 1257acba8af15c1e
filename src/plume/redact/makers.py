"""Forms of keys whose makers are too many for a kind each: prefix, signs and length, as they document them."""

from __future__ import annotations

import re

_FORMS = (
    # code and packages
    r"npm_[0-9A-Za-z]{36}",
    r"pypi-[\w-]{50,250}",
    r"rubygems_[0-9a-f]{48}",
    r"dckr_(?:pat|oat)_[\w-]{20,80}",
    r"AT[AC]TT3[\w=-]{50,250}",  # Atlassian
    r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}",  # Postman
    r"lin_(?:api|oauth)_[0-9A-Za-z]{32,80}",  # Linear
    r"fig[do]_[\w-]{36,80}",
    # clouds and their parts
    r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"dapi[0-9a-f]{32}(?:-[0-9])?",  # Databricks
    r"hv[sbr]\.[\w-]{24,250}",  # Vault
    r"dp\.(?:pt|st|ct|sa|scim|audit)\.(?:[\w-]{1,40}\.)?[0-9A-Za-z]{40,44}",  # Doppler
    r"pul-[0-9a-f]{40}",
    r"nfp_[0-9A-Za-z]{36,40}",  # Netlify
    r"sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,80}",  # Supabase
    r"pscale_(?:tkn|pw|oauth)_[\w.-]{32,80}",
    r"AVNS_[\w-]{19}",  # Aiven
    r"tskey-(?:auth|api|client)-[0-9A-Za-z-]{20,80}",  # Tailscale
    r"ya29\.[\w-]{20,500}|GOCSPX-[\w-]{28}",  # Google
    r"glsa_[0-9A-Za-z]{32}_[0-9A-Fa-f]{8}|glc_[0-9A-Za-z+/=]{32,400}",  # Grafana
    r"NRAK-[0-9A-Z]{27}",  # New Relic
    r"sntry[su]_[\w+/=-]{40,400}",  # Sentry
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"[ps]k\.eyJ[\w-]{20,200}\.[\w-]{20,40}",  # Mapbox
    r"SCW[0-9A-Z]{17}|LTAI[0-9A-Za-z]{12,20}",  # Scaleway, Alibaba
    r"[0-9A-Za-z]{14}\.atlasv1\.[\w-]{60,70}",  # Terraform
    r"sq[apu]_[0-9a-f]{40}",  # SonarQube
    r"(?:sdk|api|mob)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # LaunchDarkly
    r"1//0[\w-]{40,200}",  # Google, to refresh with
    r"[\w~.]{3}8Q~[\w~.-]{34}",  # Azure
    r"rnd_[0-9A-Za-z]{28,40}|HRKU-[\w-]{36,70}",  # Render, Heroku
    r"bkua_[\w-]{36,80}|CCIPAT_[\w-]{40,80}",  # Buildkite, CircleCI
    # language models
    r"pcsk_[\w-]{40,90}|lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}",  # Pinecone, LangSmith
    r"sk_[0-9a-f]{48}",  # ElevenLabs
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:fx",  # DeepL
    r"gsk_[0-9A-Za-z]{40,80}",  # Groq
    r"r8_[0-9A-Za-z]{37}",  # Replicate
    r"(?:pplx|csk|tvly|xai|nvapi)-[\w-]{24,120}",  # Perplexity, Cerebras, Tavily, xAI, NVIDIA
    r"(?:jina|tgp_v1)_[\w-]{40,120}",  # Jina, Together
    # mail, chat, telephone
    r"SG\.[\w-]{16,32}\.[\w-]{16,64}",  # SendGrid
    r"x(?:keysib|smtpsib)-[0-9a-f]{64}-[0-9A-Za-z]{16}",  # Brevo
    r"key-[0-9a-f]{32}",  # Mailgun
    r"[0-9a-f]{32}-us[0-9]{1,2}",  # Mailchimp
    r"re_[0-9A-Za-z]{8}_[0-9A-Za-z]{24}",  # Resend
    r"SK[0-9a-f]{32}",  # Twilio
    r"xapp-[0-9]-[0-9A-Z]{8,14}-[0-9]{8,16}-[0-9a-f]{32,80}",  # Slack
    r"[0-9]{8,10}:AA[\w-]{33}",  # Telegram
    r"[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{27,40}",  # Discord
    # shops, customers, notes
    r"shp(?:at|ca|pa|ss)_[0-9a-f]{32}",  # Shopify
    r"whsec_[0-9A-Za-z+/=]{24,80}",  # Stripe
    r"sq0(?:atp|csp|idp)-[\w-]{22,48}",  # Square
    r"pat-(?:na|eu|ap)[0-9]-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # HubSpot
    r"ntn_[0-9A-Za-z]{40,60}|secret_[0-9A-Za-z]{43}",  # Notion
    r"pat[0-9A-Za-z]{14}\.[0-9a-f]{64}",  # Airtable
    r"rzp_(?:live|test)_[0-9A-Za-z]{14}",  # Razorpay
    r"(?:live|test)_[0-9A-Za-z]{30}",  # Mollie
    r"access-(?:sandbox|development|production)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",  # Plaid
    r"CFPAT-[\w-]{43}",  # Contentful
    r"EAA[0-9A-Za-z]{60,250}",  # Meta
    r"phx_[0-9A-Za-z]{32,60}",  # PostHog
)
_WEBHOOKS = (
    r"hooks\.slack\.com/(?:services|workflows)/(?P<slack>T[0-9A-Z]{6,14}/[AB][0-9A-Z]{6,14}/[0-9A-Za-z/]{16,64})",
    r"discord(?:app)?\.com/api/webhooks/(?P<discord>[0-9]{16,20}/[\w-]{60,80})",
)
MAKERS = re.compile(rf"(?<![\w-])(?:{'|'.join((*_WEBHOOKS, *_FORMS))})(?!\w)", re.A)
"""A key as a whole; of the address of a webhook, the named group: what lets one post to it."""
