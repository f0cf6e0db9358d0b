// Templates of a Remote Config at FIREBASE_REMOTE_CONFIG_URL_BASE, as firebase-admin for Node.js manages them.
// Prints what it found as one JSON object, a member a step.
import { initializeApp } from "firebase-admin/app";
import { getRemoteConfig } from "firebase-admin/remote-config";

const credential = { getAccessToken: async () => ({ access_token: "owner", expires_in: 3600 }) };
const config = getRemoteConfig(initializeApp({ projectId: "flipback-fake", credential }));
const found = {};

async function code(attempt) {
  try {
    await attempt();
    return "done";
  } catch (error) {
    return error.code ?? String(error);
  }
}

const first = await config.getTemplate();
found.first = { ...structuredClone(first), etag: first.etag };

first.parameterGroups = first.parameterGroups ?? {};
first.conditions = [{ name: "tenth", expression: "percent('salt') <= 10" }];
first.parameters.fresh = {
  defaultValue: { value: "false" },
  conditionalValues: { tenth: { value: "true" } },
  valueType: "BOOLEAN",
};
first.version = { description: "a person's edit" };
found.validated = (await config.validateTemplate(first)).etag === first.etag;
const published = await config.publishTemplate(first);
found.published = { etag: published.etag, parameters: published.parameters, version: published.version };

found.stale = await code(() => config.publishTemplate(first));
found.forced = (await config.publishTemplate(first, { force: true })).version.updateType;

const wrong = structuredClone(await config.getTemplate());
wrong.conditions = wrong.conditions ?? [];
wrong.parameterGroups = wrong.parameterGroups ?? {};
wrong.parameters.fresh.conditionalValues.nowhere = { value: "true" };
found.unknownCondition = await code(() => config.validateTemplate(wrong));
delete wrong.parameters.fresh.conditionalValues.nowhere;
wrong.parameters.fresh.defaultValue = { value: "perhaps" };
found.wrongType = await code(() => config.publishTemplate(wrong));

found.listed = (await config.listVersions()).versions.map((version) => version.versionNumber);
found.page = (await config.listVersions({ pageSize: 1, endVersionNumber: 2 })).versions;
found.then = (await config.getTemplateAtVersion(1)).version.versionNumber;

const rolled = await config.rollback(1);
found.rolled = { parameters: rolled.parameters, version: rolled.version };
found.rolledNowhere = await code(() => config.rollback(99));

const server = await config.getServerTemplate({ defaultConfig: { new_checkout: false } });
found.server = server.evaluate({ randomizationId: "someone" }).getBoolean("new_checkout");

console.log(JSON.stringify(found));
