// The notification service of a desktop: writes what it is told to show into a file, a line of JSON each.
//   node desktop.mjs FILE
import { createRequire } from "node:module";
import { appendFileSync } from "node:fs";

const require = createRequire(process.env.DBUS_CLIENT + "/package.json");
const dbus = require("dbus-next");
const bus = dbus.sessionBus();

class Notifications extends dbus.interface.Interface {
  Notify(application, replaces, icon, title, text, actions, hints, timeout) {
    appendFileSync(process.argv[2], JSON.stringify({ application, title, text, urgency: hints.urgency?.value }) + "\n");
    return 1;
  }
}
Notifications.configureMembers({ methods: { Notify: { inSignature: "susssasa{sv}i", outSignature: "u" } } });

await bus.requestName("org.freedesktop.Notifications");
bus.export("/org/freedesktop/Notifications", new Notifications("org.freedesktop.Notifications"));
