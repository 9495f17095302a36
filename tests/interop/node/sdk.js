// The official Node SDK: mints tokens through the core and serves the JWKS route with its Express middleware.
"use strict";
const express = require("express");
const supertokens = require("supertokens-node");
const jwt = require("supertokens-node/recipe/jwt");
const { errorHandler, middleware } = require("supertokens-node/framework/express");

supertokens.init({
  framework: "express",
  supertokens: { connectionURI: process.env.CORE, apiKey: process.env.API_KEY || undefined },
  appInfo: { appName: "interop", apiDomain: process.env.API_DOMAIN, websiteDomain: "https://www.example.com" },
  recipeList: [jwt.init()],
  telemetry: false,
});

const app = express();
let fetches = 0;
app.use((request, response, next) => {
  if (request.path === "/auth/jwt/jwks.json") fetches += 1;
  next();
});
app.use(middleware());
app.get("/fetches", (request, response) => response.json({ fetches }));
app.post("/mint", express.json(), async (request, response) => {
  // null means an omitted argument.
  const { payload, validity, useStaticKey } = request.body;
  try {
    const minted = await jwt.createJWT(payload, validity ?? undefined, useStaticKey ?? undefined);
    response.json(minted.status === "OK" ? { jwt: minted.jwt } : { error: minted.status });
  } catch (err) {
    response.json({ error: err.message });
  }
});
app.use(errorHandler());

const server = app.listen(0, "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
